/*
 * A guest for qemu-system-x86_64 -M q35,cxl=on without an operating system: it commits HDM decoders for a 2-way
 * window of 256 bytes, stores a word to each device, and then runs LOOP, the file that is included, once for each
 * line of the serial port: at RAM for an 'r', at the window for a 'w'. It answers with a letter when it is done.
 *
 * Registers: CXL 2.0, "CXL HDM Decoder Capability Structure", "Register Locator DVSEC"; ACPI CEDT of the same
 * specification. Tables and paging as the multiboot specification and the Intel SDM say.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/* loads(data, rounds): the loop as the bench runs it elsewhere. */
void loads(u64 data, u64 rounds);

__asm__(
	".text\n"
	".code32\n"
	".balign 4\n"
	"header: .long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000), header, 0x100000, 0, image_end, start\n"
	"start: cli\n"
	"	mov $pdpt + 3, %eax\n"			/* all of the first 512 GiB, at its own address */
	"	mov %eax, pml4\n"
	"	xor %ecx, %ecx\n"
	"1:	mov %ecx, %eax\n"
	"	shl $30, %eax\n"
	"	or $0x83, %eax\n"
	"	mov %eax, pdpt(, %ecx, 8)\n"
	"	mov %ecx, %eax\n"
	"	shr $2, %eax\n"
	"	mov %eax, pdpt + 4(, %ecx, 8)\n"
	"	inc %ecx\n"
	"	cmp $512, %ecx\n"
	"	jne 1b\n"
	"	mov $pml4, %eax\n"
	"	mov %eax, %cr3\n"
	"	mov $0x20, %eax\n"			/* CR4.PAE */
	"	mov %eax, %cr4\n"
	"	mov $0xc0000080, %ecx\n"		/* EFER.LME */
	"	rdmsr\n"
	"	or $0x100, %eax\n"
	"	wrmsr\n"
	"	mov $0x80000011, %eax\n"		/* CR0.PG, ET, PE */
	"	mov %eax, %cr0\n"
	"	lgdt gdt_pointer\n"
	"	ljmp $8, $long_mode\n"
	".code64\n"
	"long_mode: mov $stack + 16384, %rsp\n"
	"	call guest\n"
	"1:	hlt\n"
	"	jmp 1b\n"
	"loads: mov %rsi, %rcx\n"
	"	.incbin \"" LOOP "\"\n"
	"	ret\n"
	".balign 8\n"
	"gdt: .quad 0, 0x00209a0000000000\n"
	"gdt_pointer: .word 15\n"
	"	.long gdt\n");

__attribute__((used, aligned(4096))) u64 pml4[512], pdpt[512];
__attribute__((used, aligned(16))) u8 stack[16384];
static u8 ram[8192] __attribute__((aligned(4096)));

/* ---- ports and registers ---- */

static void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static void out32(u16 port, u32 value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }

static u8 in8(u16 port)
{
	u8 value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static u32 in32(u16 port)
{
	u32 value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static u32 get(u64 address) { return *(volatile u32 *)address; }
static void set(u64 address, u32 value) { *(volatile u32 *)address = value; }

enum { SERIAL = 0x3f8, EXIT = 0xf4 };

static void say(u8 letter)
{
	while (!(in8(SERIAL + 5) & 0x20))
		;
	out8(SERIAL, letter);
}

static u8 hear(void)
{
	while (!(in8(SERIAL + 5) & 1))
		;
	return in8(SERIAL);
}

static void fail(u8 letter)
{
	say('!');
	say(letter);
	out32(EXIT, 1);
}

/* ---- decoders ---- */

/* The decoder capability of a component register block; 0: it has none. */
static u64 decoders(u64 block)
{
	u64 cachemem = block + 0x1000;

	for (u32 i = 1; i <= get(cachemem) >> 24; i++)
		if ((get(cachemem + 4 * i) & 0xffff) == 5)
			return cachemem + (get(cachemem + 4 * i) >> 20);
	return 0;
}

enum { TWO_WAYS = 1 << 4, GRANULARITY_256 = 0, COMMIT = 1 << 9, DECODERS_ON = 2 };

static void commit(u64 hdm, u64 base, u64 size, u32 targets)
{
	set(hdm + 4, DECODERS_ON);
	set(hdm + 0x10, (u32)base);
	set(hdm + 0x14, (u32)(base >> 32));
	set(hdm + 0x18, (u32)size);
	set(hdm + 0x1c, (u32)(size >> 32));
	set(hdm + 0x24, targets);		/* of a device: bytes to skip, none */
	set(hdm + 0x28, 0);
	set(hdm + 0x20, TWO_WAYS | GRANULARITY_256 | COMMIT);
}

/* The component registers of a PCI function, by its register locator; 0: there are none. */
static u64 component_block(u64 config)
{
	for (u32 at = 0x100; at; at = get(config + at) >> 20) {
		u32 length = get(config + at + 4) >> 20;

		if ((get(config + at) & 0xffff) != 0x23 || (get(config + at + 4) & 0xffff) != 0x1e98 ||
		    (get(config + at + 8) & 0xffff) != 8)
			continue;
		for (u32 entry = 12; entry + 8 <= length; entry += 8) {
			u32 low = get(config + at + entry), bar = 0x10 + 4 * (low & 7);

			if ((low >> 8 & 0xff) == 1)
				return ((u64)get(config + bar + 4) << 32 | (get(config + bar) & ~15u)) +
				       ((u64)get(config + at + entry + 4) << 32 | (low & 0xffff0000));
		}
	}
	return 0;
}

/* Commits the decoders of all CXL memory devices, in the order of their buses; how many there are. */
static u32 commit_devices(u64 base, u64 size)
{
	u32 found = 0;
	u64 ecam;

	out32(0xcf8, 0x80000060);	/* PCIEXBAR of the q35 */
	ecam = in32(0xcfc) & 0xf0000000;
	for (u64 i = 0; i < 256 * 32; i++) {
		u64 config = ecam + (i << 15), block;

		if ((get(config + 8) >> 8) != 0x050210)
			continue;
		set(config + 4, get(config + 4) | 2);	/* memory space */
		block = component_block(config);
		if (!block || !decoders(block))
			fail('d');
		commit(decoders(block), base, size, 0);
		found++;
	}
	return found;
}

/* ---- ACPI ---- */

static u64 table(u32 name)
{
	for (u64 at = 0xe0000; at < 0x100000; at += 16) {
		u64 rsdt = get(at + 16);

		if (get(at) != 0x20445352 || get(at + 4) != 0x20525450)	/* "RSD PTR " */
			continue;
		for (u64 entry = rsdt + 36; entry < rsdt + get(rsdt + 4); entry += 4)
			if (get(get(entry)) == name)
				return get(entry);
	}
	return 0;
}

static u64 get64(u64 address) { return get(address) | (u64)get(address + 4) << 32; }

static void commit_all(u64 *window)
{
	u64 cedt = table(0x54444543), bridge = 0, size = 512ull << 20;

	*window = 0;
	for (u64 at = cedt + 36; cedt && at < cedt + get(cedt + 4); at += get(at) >> 16) {
		if ((get(at) & 0xff) == 0)
			bridge = get64(at + 16);
		else if ((get(at) & 0xff) == 1)
			*window = get64(at + 8);
	}
	if (!bridge || !*window || !decoders(bridge))
		fail('b');
	commit(decoders(bridge), *window, size, 0x0100);	/* port 0, then port 1 */
	if (commit_devices(*window, size) != 2)
		fail('n');
}

void guest(void)
{
	u64 window;

	commit_all(&window);
	for (u64 i = 0; i < 2; i++)
		*(volatile u64 *)(window + 256 * i) = 0x1122334455667700 + i;
	say('+');
	for (;;) {
		u8 order = hear();

		if (order == 'r')
			loads((u64)ram, FAST);
		else if (order == 'w')
			loads(window, SLOW);
		else
			out32(EXIT, 0);
		say(order);
	}
}

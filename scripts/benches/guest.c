/* What dispatch of a guest's access to C costs at the least: a device that is an array. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct tlb_entry { uint64_t pa; int permissions; };	/* uc_tlb_entry */

uint64_t device_read(void *engine, uint64_t offset, unsigned int size, void *memory)
{
	uint64_t value = 0;

	(void)engine;
	memcpy(&value, (const uint8_t *)memory + offset, size > 8 ? 8 : size);
	return value;
}

void device_write(void *engine, uint64_t offset, unsigned int size, uint64_t value, void *memory)
{
	(void)engine;
	memcpy((uint8_t *)memory + offset, &value, size > 8 ? 8 : size);
}

/* Every page is where it seems to be. */
bool identity(void *engine, uint64_t va, int type, struct tlb_entry *ret, void *user)
{
	(void)engine;
	(void)type;
	(void)user;
	*ret = (struct tlb_entry){ va, 7 };
	return true;
}

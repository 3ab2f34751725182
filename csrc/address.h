/* Kinds of addresses as types of their own, so that mixing them does not compile. */
#ifndef MMU_ADDRESS_H
#define MMU_ADDRESS_H
#include <stdint.h>

typedef struct { uint64_t v; } vaddr_t;		/* virtual */
typedef struct { uint64_t v; } ipa_t;		/* guest-physical: what stage 2 translates */
typedef struct { uint64_t v; } paddr_t;		/* physical: what the bus takes (HPA) */
typedef struct { uint64_t v; } dpa_t;		/* inside a device */

static inline paddr_t pa_of(uint64_t v) { return (paddr_t){ v }; }
static inline ipa_t ipa_of(uint64_t v) { return (ipa_t){ v }; }
static inline dpa_t dpa_of(uint64_t v) { return (dpa_t){ v }; }
static inline vaddr_t va_of(uint64_t v) { return (vaddr_t){ v }; }

#endif

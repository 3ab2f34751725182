#ifndef MMU_H
#define MMU_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "mmu_tables.h"
#include "places_api.h"
#include "bus_api.h"
#include "hostmem_api.h"
#include "mirror_api.h"
#include "walk_api.h"
#include "x86_api.h"
#include "arm64_api.h"
#include "tlb_api.h"
#include "guest_api.h"
#include "scan_api.h"
#include "locate_api.h"
#endif

/* memobj for C: ELF images in one call, as mmapobj(2) of Solaris and illumos. 64-bit Linux on x86-64. */
#ifndef MEMOBJ_H
#define MEMOBJ_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Flags of mmapobj. Any other bit is EINVAL. */
#define MMOBJ_PADDING 0x10000   /* arg points to a size_t, the bytes of padding */
#define MMOBJ_INTERPRET 0x20000 /* map the segments of the file by its format */
#define MMOBJ_ALL_FLAGS 0x30000

/* Types in mr_flags. They are numbers, not a set of bits: use MR_GET_TYPE. */
#define MR_PADDING 1
#define MR_HDR_ELF 2
#define MR_HDR_AOUT 3
#define MR_TYPE_MASK 0xffff
#define MR_GET_TYPE(val) ((val) & MR_TYPE_MASK)

/*
 * One segment. Bytes of the file are at mr_addr + mr_offset, mr_fsize of them; zeros follow up to
 * mr_addr + mr_msize. munmap(mr_addr, mr_msize) unmaps all of it.
 */
typedef struct mmapobj_result {
    char *mr_addr;      /* the first address, that of a page */
    size_t mr_msize;    /* bytes from there to the end of the segment; not rounded */
    size_t mr_fsize;    /* bytes that come from the file */
    size_t mr_offset;   /* where the segment's own bytes begin, less than a page */
    unsigned mr_prot;   /* PROT_READ, PROT_WRITE, PROT_EXEC */
    unsigned mr_flags;  /* MR_PADDING, MR_HDR_ELF, or 0 */
} mmapobj_result_t;

/*
 * Maps the file of fd, all of it or nothing, and tells its segments. *elements is the room in storage, and after
 * success how many segments there are. Returns 0, or -1 with errno set. With E2BIG, *elements is how many there
 * would be; call with *elements = 0 to learn it.
 */
int mmapobj(int fd, unsigned flags, mmapobj_result_t *storage, unsigned *elements, void *arg);

#ifdef __cplusplus
}
#endif

#endif

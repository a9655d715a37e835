// The program of paths.records: each way to give memory up, once, with figures that are easy to
// recognise. 64-bit, static and without libc, so that nothing but this is in the trace.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <sys/ipc.h>
#include <sys/syscall.h>

#define PAGE 4096L
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

static long call(long nr, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
  long ret;
  __asm__ volatile("syscall"
                   : "=a"(ret)
                   : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return ret;
}

static long map(long address, long pages, long flags, long fd) {
  return call(SYS_mmap, address, pages * PAGE, RW, flags, fd, 0);
}

static void touch(long start, long pages) {
  for (long page = 0; page < pages; page++) *(volatile char *)(start + page * PAGE) = 1;
}

void _start(void) {
  long a = map(0, 64, ANON, -1);
  touch(a, 32);
  call(SYS_madvise, a, 8 * PAGE, MADV_DONTNEED, 0, 0, 0);
  call(SYS_madvise, a + 8 * PAGE, 4 * PAGE, MADV_FREE, 0, 0, 0);
  call(SYS_mprotect, a + 40 * PAGE, 8 * PAGE, PROT_READ, 0, 0, 0);
  map(a + 12 * PAGE, 4, ANON | MAP_FIXED, -1);
  call(SYS_mremap, a, 64 * PAGE, 65536 * PAGE, 0, 0, 0); // fails: two regions more are there
  call(SYS_munmap, a + 16 * PAGE, 16 * PAGE, 0, 0, 0, 0);

  long b = map(0, 16, ANON, -1);
  touch(b, 16);
  call(SYS_mremap, b, 16 * PAGE, 6 * PAGE, 0, 0, 0);

  long heap = call(SYS_brk, 0, 0, 0, 0, 0, 0);
  call(SYS_brk, heap + 10 * PAGE, 0, 0, 0, 0, 0);
  touch((heap + PAGE - 1) & -PAGE, 9);
  call(SYS_brk, heap + 3 * PAGE, 0, 0, 0, 0, 0);

  long fd = call(SYS_memfd_create, (long)"notes", 0, 0, 0, 0, 0);
  call(SYS_ftruncate, fd, 12 * PAGE, 0, 0, 0, 0);
  long file = map(0, 12, MAP_SHARED, fd);
  touch(file, 12);
  call(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE, 5 * PAGE, 0, 0);

  long segment = call(SYS_shmget, IPC_PRIVATE, 7 * PAGE, 0600, 0, 0, 0);
  long shared = call(SYS_shmat, segment, 0, 0, 0, 0, 0);
  call(SYS_shmctl, segment, IPC_RMID, 0, 0, 0, 0);
  touch(shared, 7);
  call(SYS_shmdt, shared, 0, 0, 0, 0, 0);

  call(SYS_exit_group, 3, 0, 0, 0, 0, 0);
}

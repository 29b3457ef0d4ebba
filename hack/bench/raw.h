// What the C programs of this folder stand on: system calls without a libc, so that a process of theirs costs what the kernel
// charges for a process and nothing else. Built with -static -nostdlib -ffreestanding.
//
// With -DTRACE each call is timed by the processor's counter; `print_trace` writes what was gathered.

#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/sched.h>
#include <linux/types.h>

#if defined(__x86_64__)
static inline long call6(long n, long a, long b, long c, long d, long e, long f) {
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return r;
}
static inline unsigned long ticks(void) {
	unsigned lo, hi;
	__asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi));
	return (unsigned long)hi << 32 | lo;
}
__asm__(".globl _start\n_start:\nxor %ebp,%ebp\nmov %rsp,%rdi\nand $-16,%rsp\ncall start\nhlt\n");
// clone3 with a stack of its own: the child calls `child`, which never returns.
long clone_child(void *args, unsigned long size, void (*child)(void));
__asm__("clone_child:\nmov %rdx,%r9\nmov $435,%eax\nsyscall\ntest %rax,%rax\njnz 1f\nxor %ebp,%ebp\ncall *%r9\nhlt\n1: ret\n");
#elif defined(__aarch64__)
static inline long call6(long n, long a, long b, long c, long d, long e, long f) {
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
static inline unsigned long ticks(void) {
	unsigned long t;
	__asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(t));
	return t;
}
__asm__(".globl _start\n_start:\nmov x29,#0\nmov x0,sp\nbl start\nbrk #1\n");
long clone_child(void *args, unsigned long size, void (*child)(void));
__asm__("clone_child:\nmov x9,x2\nmov x8,#435\nsvc 0\ncbnz x0,1f\nmov x29,#0\nblr x9\nbrk #1\n1: ret\n");
#else
#error "x86_64 or aarch64"
#endif

#ifdef TRACE
static unsigned long began[2];
static unsigned long nanoseconds(void) {
	long time[2];
	call6(__NR_clock_gettime, 1 /* CLOCK_MONOTONIC */, (long)time, 0, 0, 0, 0);
	return (unsigned long)time[0] * 1000000000UL + (unsigned long)time[1];
}
#define BEGIN_TRACE() (began[0] = nanoseconds(), began[1] = ticks())
static struct { const char *name; char detail[32]; unsigned long from, to; } trace[1024];
static unsigned traced;
static char detail[32];
static void about(const char *text) {
	unsigned i = 0, length = 0;
	while (text[length]) length++;
	if (length >= sizeof detail) text += length - sizeof detail + 1;
	for (; text[i]; i++) detail[i] = text[i];
	detail[i] = 0;
}
static void record(const char *name, unsigned long from, unsigned long to) {
	if (traced == sizeof trace / sizeof *trace) return;
	trace[traced].name = name;
	for (unsigned i = 0; i < sizeof detail; i++) trace[traced].detail[i] = detail[i];
	trace[traced].from = from;
	trace[traced++].to = to;
}
static inline long timed(const char *name, long n, long a, long b, long c, long d, long e, long f) {
	unsigned long from = ticks();
	long r = call6(n, a, b, c, d, e, f);
	record(name, from, ticks());
	return r;
}
#define CALL(name, n, a, b, c, d, e, f) timed(#name, n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define ABOUT(text) about(text)
#else
#define BEGIN_TRACE() ((void)0)
#define CALL(name, n, a, b, c, d, e, f) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define ABOUT(text) ((void)0)
#endif

// sys(name, arguments...): the call, as the kernel answers it: negative errno or a result.
#define sys(...) SYS_PICK(__VA_ARGS__, SYS6, SYS5, SYS4, SYS3, SYS2, SYS1, SYS0)(__VA_ARGS__)
#define SYS_PICK(_n, _1, _2, _3, _4, _5, _6, macro, ...) macro
#define SYS0(n) CALL(n, __NR_##n, 0, 0, 0, 0, 0, 0)
#define SYS1(n, a) CALL(n, __NR_##n, a, 0, 0, 0, 0, 0)
#define SYS2(n, a, b) CALL(n, __NR_##n, a, b, 0, 0, 0, 0)
#define SYS3(n, a, b, c) CALL(n, __NR_##n, a, b, c, 0, 0, 0)
#define SYS4(n, a, b, c, d) CALL(n, __NR_##n, a, b, c, d, 0, 0)
#define SYS5(n, a, b, c, d, e) CALL(n, __NR_##n, a, b, c, d, e, 0)
#define SYS6(n, a, b, c, d, e, f) CALL(n, __NR_##n, a, b, c, d, e, f)

// The compiler may call these for its own copies.
void *memcpy(void *to, const void *from, unsigned long n) {
	for (unsigned long i = 0; i < n; i++) ((char *)to)[i] = ((const char *)from)[i];
	return to;
}
void *memset(void *to, int byte, unsigned long n) {
	for (unsigned long i = 0; i < n; i++) ((char *)to)[i] = (char)byte;
	return to;
}

static unsigned long length(const char *s) {
	unsigned long n = 0;
	while (s[n]) n++;
	return n;
}
static int same(const char *a, const char *b) {
	while (*a && *a == *b) a++, b++;
	return *a == *b;
}
// Appends `s` at `at`, and gives the place of the closing NUL.
static char *put(char *at, const char *s) {
	while ((*at = *s++)) at++;
	return at;
}
static char *put_number(char *at, unsigned long n) {
	char digits[24], *d = digits + 23;
	*d = 0;
	do *--d = (char)('0' + n % 10); while (n /= 10);
	return put(at, d);
}
static unsigned long number(const char *s) {
	unsigned long n = 0;
	while (*s >= '0' && *s <= '9') n = n * 10 + (unsigned long)(*s++ - '0');
	return n;
}

_Noreturn static void leave(int status) {
	for (;;) call6(__NR_exit_group, status, 0, 0, 0, 0, 0);
}
_Noreturn static void die(const char *what, long errno_) {
	char text[512], *at = put(text, "floor: ");
	at = put(at, what);
	at = put_number(put(at, ": errno "), (unsigned long)-errno_);
	at = put(at, "\n");
	call6(__NR_write, 2, (long)text, at - text, 0, 0, 0);
	leave(125);
}
// The result, which is no error.
static long must_(const char *what, long r) {
	if (r < 0 && r > -4096) die(what, r);
	return r;
}
#define must(...) must_(#__VA_ARGS__, sys(__VA_ARGS__))

#ifdef TRACE
// One line a call on standard error: who, call, detail, ticks at its begin, ticks it took. And a line that says how long all
// took, in nanoseconds and in ticks.
static void print_trace(const char *who) {
	static char text[128 * 1024];
	unsigned long from = ticks();
	unsigned long elapsed = nanoseconds() - began[0], passed = ticks() - began[1];
	char *at = text;
	if (began[0]) {
		at = put_number(put(put(at, who), "\tclock\t\t"), elapsed);
		at = put(put_number(put(at, "\t"), passed), "\n");
	}
	for (unsigned i = 0; i < traced && at < text + sizeof text - 1024; i++) {
		at = put(put(put(put(at, who), "\t"), trace[i].name), "\t");
		at = put(put(at, trace[i].detail), "\t");
		at = put_number(put(put_number(at, trace[i].from), "\t"), trace[i].to - trace[i].from);
		at = put(at, "\n");
	}
	call6(__NR_write, 2, (long)text, at - text, 0, 0, 0);
	// What the printing took, which whoever waits for this process must not be charged.
	at = put_number(put(put(text, who), "\t(trace)\t\t"), from);
	at = put(put_number(put(at, "\t"), ticks() - from), "\n");
	call6(__NR_write, 2, (long)text, at - text, 0, 0, 0);
}
#else
#define print_trace(who) ((void)0)
#endif

// The floor: every kernel operation that a bundle needs for a correct result, one sealed exec included, straight on. No
// config is parsed, nothing is looked up, nothing is logged, no state is kept that a kernel call does not need.
//
// usage: floor VERB CONFIG ROOTFS CGROUP HIERARCHIES STATE FILTER BINDS PID ARG...
//   VERB         run; create, start, delete; exec
//   CONFIG       default (data/default.json) or docker (data/docker.json)
//   ROOTFS       absolute path of the container's root
//   CGROUP       absolute path of its cgroup in every hierarchy; the parent exists
//   HIERARCHIES  folders of the v1 hierarchies below /sys/fs/cgroup, with ":" between them; "" is cgroup v2
//   STATE        a folder that `create` makes and `delete` removes
//   FILTER       a file that holds the seccomp filter's instructions, or ""
//   BINDS        how many mounts of ROOTFS/../extra on /mnt/1, /mnt/2, ... the config asks for (rbind, rprivate)
//   PID          `exec`: the container's process, or ""
//   ARG...       the process to execute
//
// Two programs are made of this file. The host's half carries the other one (-DINIT) in itself, padded to the 120 kB that
// cofferdam's init has, seals a copy of it in a memfd for each container, and executes that.

#include "raw.h"
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <linux/stat.h>

// What <linux/*.h> does not say and libc's headers do.
enum {
	o_wronly = 1, o_rdwr = 2,
	s_ififo = 0010000, s_ifchr = 0020000, s_ifdir = 0040000, s_ifmt = 0170000,
	af_inet = 2, sock_dgram = 2, iff_up = 1, iff_loopback = 8, iff_running = 64,
	at_empty_path = 0x1000, at_recursive = 0x8000,
	ms_rdonly = 1, ms_nosuid = 2, ms_nodev = 4, ms_noexec = 8, ms_bind = 4096, ms_rec = 16384, ms_private = 1 << 18,
	ms_slave = 1 << 19, ms_strictatime = 1 << 24, mnt_detach = 2,
	sig_setmask = 2, sig_chld = 17,
};

enum { VERB = 1, CONFIG, ROOTFS, CGROUP, HIERARCHIES, STATE, FILTER, BINDS, PID, ARGS };

static char **argv_, **envp_;
static int docker, v2;

static void write_file(const char *path, const char *text) {
	ABOUT(path);
	long fd = must(openat, AT_FDCWD, path, o_wronly | O_CLOEXEC);
	must(write, fd, text, length(text));
	must(close, fd);
}

// The next name of a list with ":" between the names, appended at `at`; the rest of the list, or nothing after the last.
static const char *next_name(const char *list, char *at) {
	if (!*list) return 0;
	while (*list && *list != ':') *at++ = *list++;
	*at = 0;
	return *list ? list + 1 : list;
}

#ifndef INIT
// ---------------------------------------------------------------------------------------------------------------- the host's half

__asm__(".section .rodata\n.globl image, image_end\nimage: .incbin \"" IMAGE "\"\nimage_end:\n.previous");
extern const char image[], image_end[];

// Device rules. What both configs come to once the defaults of the runtime-spec are added: all may be made, these used.
static const char *const allowed[] = {
	"b *:* m", "c *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm",
	"c 136:* rwm", "c 5:1 rwm" /* Docker's only */,
};
static unsigned rules(void) { return sizeof allowed / sizeof *allowed - !docker; }

// The same rules for cgroup v2: type, access, major and minor in registers 2 to 5; each rule returns 1 where all is equal.
#define INSN(c, d, s, o, i) { .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) }
#define UNLESS(reg, value, skip) INSN(BPF_JMP32 | BPF_JNE | BPF_K, reg, 0, skip, value)
#define RESULT(value) INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, value), INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define DEVICE(major, minor) UNLESS(4, major, 3), UNLESS(5, minor, 2), RESULT(1)
static const struct bpf_insn device_program[] = {
	INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 1, 0, 0),
	INSN(BPF_ALU | BPF_MOV | BPF_X, 3, 2, 0, 0),
	INSN(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff),
	INSN(BPF_ALU | BPF_RSH | BPF_K, 3, 0, 0, 16),
	INSN(BPF_LDX | BPF_MEM | BPF_W, 4, 1, 4, 0),
	INSN(BPF_LDX | BPF_MEM | BPF_W, 5, 1, 8, 0),
	UNLESS(3, BPF_DEVCG_ACC_MKNOD, 2), RESULT(1),
	UNLESS(2, BPF_DEVCG_DEV_CHAR, 4 * 7 + 3 + 4),
	DEVICE(1, 3), DEVICE(1, 5), DEVICE(1, 7), DEVICE(1, 8), DEVICE(1, 9), DEVICE(5, 0), DEVICE(5, 2),
	UNLESS(4, 136, 2), RESULT(1),
	DEVICE(5, 1) /* Docker's only: a default of runc's until 1.0.0-rc9 */,
	RESULT(0),
};

// One v1 hierarchy's cgroup: cpuset's is of no use until it has processors and memory, devices' begins with the parent's rules.
static void make_v1_cgroup(const char *hierarchy, char *dir, char *end) {
	ABOUT(hierarchy);
	must(mkdirat, AT_FDCWD, dir, 0755);
	if (same(hierarchy, "cpuset")) {
		static const char *const copied[] = {"/cpuset.cpus", "/cpuset.mems"};
		for (unsigned i = 0; i < 2; i++) {
			char value[4096], parent[512], *slash = put(parent, dir);
			while (*--slash != '/') {}
			put(slash, copied[i]);
			ABOUT(copied[i]);
			long fd = must(openat, AT_FDCWD, parent, O_CLOEXEC);
			long n = must(read, fd, value, sizeof value - 1);
			must(close, fd);
			value[n] = 0;
			put(end, copied[i]);
			write_file(dir, value);
			*end = 0;
		}
	}
	if (same(hierarchy, "devices")) {
		put(end, "/devices.deny");
		write_file(dir, "a");
		put(end, "/devices.allow");
		long fd = must(openat, AT_FDCWD, dir, o_wronly | O_CLOEXEC);
		ABOUT("devices.allow");
		for (unsigned i = 0; i < rules(); i++) must(write, fd, allowed[i], length(allowed[i]));
		must(close, fd);
		*end = 0;
	}
}

// The cgroups; for v2 the folder, for the clone.
static long make_cgroups(void) {
	char dir[512];
	if (v2) {
		put(put(dir, "/sys/fs/cgroup"), argv_[CGROUP]);
		must(mkdirat, AT_FDCWD, dir, 0755);
		long fd = must(openat, AT_FDCWD, dir, O_DIRECTORY | O_CLOEXEC);
		union bpf_attr load = {
			.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insns = (unsigned long)device_program,
			.insn_cnt = sizeof device_program / sizeof *device_program, .license = (unsigned long)"Apache",
		};
		long program = must(bpf, BPF_PROG_LOAD, &load, sizeof load);
		union bpf_attr attach = {
			.target_fd = (unsigned)fd, .attach_bpf_fd = (unsigned)program, .attach_type = BPF_CGROUP_DEVICE,
			.attach_flags = BPF_F_ALLOW_MULTI,
		};
		must(bpf, BPF_PROG_ATTACH, &attach, sizeof attach);
		must(close, program);
		return fd;
	}
	char name[64];
	for (const char *rest = argv_[HIERARCHIES]; (rest = next_name(rest, name));)
		make_v1_cgroup(name, dir, put(put(put(dir, "/sys/fs/cgroup/"), name), argv_[CGROUP]));
	return -1;
}

static void remove_cgroups(void) {
	char dir[512], name[64];
	if (v2) {
		put(put(dir, "/sys/fs/cgroup"), argv_[CGROUP]);
		must(unlinkat, AT_FDCWD, dir, 0x200);
		return;
	}
	for (const char *rest = argv_[HIERARCHIES]; (rest = next_name(rest, name));) {
		put(put(put(dir, "/sys/fs/cgroup/"), name), argv_[CGROUP]);
		ABOUT(name);
		must(unlinkat, AT_FDCWD, dir, 0x200);
	}
}

static long sealed_image(void) {
	ABOUT("image");
	long fd = must(memfd_create, "init", 3 /* MFD_CLOEXEC | MFD_ALLOW_SEALING */);
	must(write, fd, image, image_end - image);
	must(fcntl, fd, 1033 /* F_ADD_SEALS */, 15 /* SEAL, SHRINK, GROW, WRITE */);
	return fd;
}

static long image_fd;
static char *init_argv[64];
#ifdef TRACE
static unsigned long runs, executes;
#define NOW(when) ((when) = ticks())
#else
#define NOW(when) ((void)0)
#endif

// Runs on borrowed memory, like a child of vfork. v1 takes the cheap road into its cgroups: the process itself writes "0" into
// `tasks`, for which the kernel needs no lock over all processes and waits for no grace period.
static void child(void) {
	char path[512], name[64];
	NOW(runs);
	if (!v2) for (const char *rest = argv_[HIERARCHIES]; (rest = next_name(rest, name));) {
		put(put(put(put(path, "/sys/fs/cgroup/"), name), argv_[CGROUP]), "/tasks");
		write_file(path, "0");
	}
	NOW(executes);
	must(execveat, image_fd, "", init_argv, envp_, at_empty_path);
	leave(125);
}

static long spawn(unsigned long flags, long cgroup) {
	static char stack[16384] __attribute__((aligned(16)));
	struct clone_args a = {
		.flags = CLONE_VM | CLONE_VFORK | flags, .exit_signal = sig_chld,
		.stack = (unsigned long)stack, .stack_size = sizeof stack,
	};
	if (cgroup >= 0) a.flags |= CLONE_INTO_CGROUP, a.cgroup = (unsigned long)cgroup;
#ifdef TRACE
	unsigned long from = ticks();
	long pid = clone_child(&a, sizeof a, child);
	ABOUT("(until the parent goes on)");
	record("execveat", executes, ticks());
	ABOUT("(until the child runs)");
	record("clone3", from, runs);
	return must_("clone3", pid);
#else
	return must_("clone3", clone_child(&a, sizeof a, child));
#endif
}

static const unsigned long namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET;

static int wait_for(long pid) {
	int status = 0;
	ABOUT("(execve, run and end of it)");
	must(wait4, pid, &status, 0, 0);
	if (status & 0x7f) die("killed", -(status & 0x7f));
	return status >> 8;
}

static int run(void) {
	long cgroup = make_cgroups();
	image_fd = sealed_image();
	int status = wait_for(spawn(namespaces, cgroup));
	remove_cgroups();
	return status;
}

static char *in_state(char *path, const char *name) {
	put(put(put(path, argv_[STATE]), "/"), name);
	return path;
}

// `start` is the fifo that init reads the word from, `up` the one that the execve closes, `pid` what `delete` asks.
static int create(void) {
	char path[512], pid[24];
	must(mkdirat, AT_FDCWD, argv_[STATE], 0700);
	must(mknodat, AT_FDCWD, in_state(path, "start"), s_ififo | 0600, 0);
	must(mknodat, AT_FDCWD, in_state(path, "up"), s_ififo | 0600, 0);
	long cgroup = make_cgroups();
	image_fd = sealed_image();
	int ends[2];
	char end[12];
	must(pipe2, ends, 0);
	put_number(end, (unsigned long)ends[1]);
	init_argv[PID] = end; // init says there that it has come to the barrier
	put_number(pid, (unsigned long)spawn(namespaces, cgroup));
	must(close, ends[1]);
	long fd = must(openat, AT_FDCWD, in_state(path, "pid"), o_wronly | O_CREAT | O_CLOEXEC, 0600);
	must(write, fd, pid, length(pid));
	must(close, fd);
	char ready;
	ABOUT("(until init is ready)");
	if (must(read, ends[0], &ready, 1) != 1) die("init", -ECHILD);
	return 0;
}

static int start_(void) {
	char path[512], end;
	long up = must(openat, AT_FDCWD, in_state(path, "up"), O_CLOEXEC);
	write_file(in_state(path, "start"), "x");
	ABOUT("(until it executed)");
	return (int)must(read, up, &end, 1);
}

static int delete(void) {
	char path[512], pid[24];
	long fd = must(openat, AT_FDCWD, in_state(path, "pid"), O_CLOEXEC);
	long n = must(read, fd, pid, sizeof pid - 1);
	must(close, fd);
	pid[n] = 0;
	if (sys(kill, number(pid), 0) != -ESRCH) die("the container runs", -EBUSY);
	remove_cgroups();
	must(unlinkat, AT_FDCWD, path, 0);
	must(unlinkat, AT_FDCWD, in_state(path, "start"), 0);
	must(unlinkat, AT_FDCWD, in_state(path, "up"), 0);
	must(unlinkat, AT_FDCWD, argv_[STATE], 0x200);
	return 0;
}

// The sealed image enters the namespaces and clones the process as a sibling of itself: two processes, for a process that is in
// the container's pid namespace must not run the host's program.
static int exec(void) {
	char path[512];
	long cgroup = -1;
	if (v2) {
		put(put(path, "/sys/fs/cgroup"), argv_[CGROUP]);
		cgroup = must(openat, AT_FDCWD, path, O_DIRECTORY | O_CLOEXEC);
	}
	image_fd = sealed_image();
	long init = spawn(0, cgroup);
	if (wait_for(init)) return 125;
	int status = 0;
	ABOUT("(execve, run and end of it)");
	must(wait4, -1, &status, 0, 0);
	return status >> 8;
}

__attribute__((used)) _Noreturn static void start(long *stack) {
	long argc = stack[0];
	argv_ = (char **)(stack + 1);
	envp_ = argv_ + argc + 1;
	if (argc <= ARGS || argc >= 64) die("arguments", -EINVAL);
	docker = same(argv_[CONFIG], "docker");
	v2 = !*argv_[HIERARCHIES];
	for (long i = 0; i <= argc; i++) init_argv[i] = argv_[i];
	BEGIN_TRACE();
	const char *verb = argv_[VERB];
	int status = same(verb, "run") ? run() : same(verb, "create") ? create() : same(verb, "start") ? start_()
		: same(verb, "delete") ? delete() : same(verb, "exec") ? exec() : 125;
	print_trace("host");
	leave(status);
}

#else
// --------------------------------------------------------------------------------------------------------------------- init's half

#ifdef PAD
__attribute__((used)) static const char padding[PAD] = {1};
#endif

static struct sock_filter filter[32768];
static long instructions;

struct mount { const char *source, *target, *type; unsigned long flags; const char *data; };
static const unsigned long restricted = ms_nosuid | ms_nodev | ms_noexec;

static const struct mount of_default[] = {
	{"proc", "proc", "proc", 0, 0},
	{"tmpfs", "dev", "tmpfs", ms_nosuid | ms_strictatime, "mode=755,size=65536k"},
	{"devpts", "dev/pts", "devpts", ms_nosuid | ms_noexec, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
	{"shm", "dev/shm", "tmpfs", restricted, "mode=1777,size=65536k"},
	{"mqueue", "dev/mqueue", "mqueue", restricted, 0},
	{"sysfs", "sys", "sysfs", restricted | ms_rdonly, 0},
	{0, "sys/fs/cgroup", 0, 0, 0},
};
static const struct mount of_docker[] = {
	{"proc", "proc", "proc", restricted, 0},
	{"tmpfs", "dev", "tmpfs", ms_nosuid | ms_strictatime, "mode=755,size=65536k"},
	{"devpts", "dev/pts", "devpts", ms_nosuid | ms_noexec, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
	{"sysfs", "sys", "sysfs", restricted | ms_rdonly, 0},
	{0, "sys/fs/cgroup", 0, 0, 0},
	{"mqueue", "dev/mqueue", "mqueue", restricted, 0},
	{"shm", "dev/shm", "tmpfs", restricted, "mode=1777,size=67108864"},
};
enum { mounts = 7 };

static const char *const masked_by_default[] = {
	"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
	"/proc/sched_debug", "/sys/firmware", "/proc/scsi", 0,
};
static const char *const masked_by_docker[] = {
	"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
	"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap", 0,
};
static const char *const readonly[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", 0};

#define CAP(name) (1UL << CAP_##name)
static const unsigned long caps_of_default = CAP(AUDIT_WRITE) | CAP(KILL) | CAP(NET_BIND_SERVICE);
static const unsigned long caps_of_docker = CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FSETID) | CAP(FOWNER) | CAP(MKNOD) | CAP(NET_RAW)
	| CAP(SETGID) | CAP(SETUID) | CAP(SETFCAP) | CAP(SETPCAP) | CAP(NET_BIND_SERVICE) | CAP(SYS_CHROOT) | CAP(KILL)
	| CAP(AUDIT_WRITE);

static void set_mount(const char *path, unsigned flags, unsigned long attributes) {
	struct mount_attr a = {.attr_set = attributes};
	must(mount_setattr, AT_FDCWD, path, flags, &a, sizeof a);
}

// v1: the container sees its own cgroup of each hierarchy, by bind mounts. One call makes the whole tree read-only.
static void mount_cgroups(void) {
	if (v2) {
		must(mount, "cgroup", "sys/fs/cgroup", "cgroup2", restricted | ms_rdonly, 0);
		return;
	}
	must(mount, "tmpfs", "sys/fs/cgroup", "tmpfs", restricted, "mode=755");
	char name[64], source[512], target[128];
	for (const char *rest = argv_[HIERARCHIES]; (rest = next_name(rest, name));) {
		ABOUT(name);
		put(put(put(source, "/sys/fs/cgroup/"), name), argv_[CGROUP]);
		put(put(target, "sys/fs/cgroup/"), name);
		must(mkdirat, AT_FDCWD, target, 0755);
		must(mount, source, target, 0, ms_bind, 0);
	}
	ABOUT("sys/fs/cgroup");
	set_mount("sys/fs/cgroup", at_recursive, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
}

static void mount_all(void) {
	ABOUT("/");
	must(mount, "", "/", 0, ms_slave | ms_rec, 0);
	ABOUT("rootfs");
	must(mount, argv_[ROOTFS], argv_[ROOTFS], 0, ms_bind | ms_rec, 0);
	must(chdir, argv_[ROOTFS]);
	for (const struct mount *m = docker ? of_docker : of_default, *end = m + mounts; m < end; m++) {
		ABOUT(m->target);
		if (m->target[0] == 'd' && m->target[3]) must(mkdirat, AT_FDCWD, m->target, 0755);
		if (m->type) must(mount, m->source, m->target, m->type, m->flags, m->data);
		else mount_cgroups();
	}
	char source[512], target[64];
	put(put(source, argv_[ROOTFS]), "/../extra");
	for (unsigned long i = 1, n = number(argv_[BINDS]); i <= n; i++) {
		ABOUT("mnt");
		put_number(put(target, "mnt/"), i);
		must(mount, source, target, 0, ms_bind | ms_rec, 0);
		must(mount, "", target, 0, ms_private | ms_rec, 0);
	}
}

static void make_devices(void) {
	static const struct { const char *path; unsigned major, minor; } nodes[] = {
		{"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7}, {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
	};
	static const char *const links[][2] = {
		{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
		{"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"},
	};
	for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++) {
		ABOUT(nodes[i].path);
		must(mknodat, AT_FDCWD, nodes[i].path, s_ifchr | 0666, nodes[i].major << 8 | nodes[i].minor);
	}
	for (unsigned i = 0; i < sizeof links / sizeof *links; i++) {
		ABOUT(links[i][1]);
		must(symlinkat, links[i][0], AT_FDCWD, links[i][1]);
	}
}

// Folders are covered by one empty file system, which later ones get a bind mount of. What a path is is asked first: a mount of
// a file on a folder fails, and its undoing waits for a grace period of RCU (some 45 µs), where statx takes half of one µs.
static void protect_paths(void) {
	for (const char *const *p = readonly; *p; p++) {
		ABOUT(*p);
		if (sys(mount, *p, *p, 0, ms_bind | ms_rec, 0) == -ENOENT) continue;
		set_mount(*p, at_recursive, MOUNT_ATTR_RDONLY);
	}
	const char *empty = 0;
	for (const char *const *p = docker ? masked_by_docker : masked_by_default; *p; p++) {
		ABOUT(*p);
		struct statx about;
		if (sys(statx, AT_FDCWD, *p, 0, STATX_TYPE, &about)) continue;
		if ((about.stx_mode & s_ifmt) != s_ifdir) must(mount, "/dev/null", *p, 0, ms_bind, 0);
		else if (empty) must(mount, empty, *p, 0, ms_bind, 0);
		else must(mount, "tmpfs", *p, "tmpfs", ms_rdonly, "nr_inodes=1,nr_blocks=1"), empty = *p;
	}
}

static void enter_root(void) {
	ABOUT("");
	must(pivot_root, ".", ".");
	must(umount2, ".", mnt_detach);
	must(chdir, "/");
	if (docker) {
		write_file("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
		write_file("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
		write_file("/proc/self/oom_score_adj", "0");
	}
	protect_paths();
	ABOUT("/");
	if (!docker) set_mount("/", 0, MOUNT_ATTR_RDONLY);
}

static void bring_up_loopback(void) {
	ABOUT("lo");
	struct { char name[16]; short flags; char rest[22]; } lo = {"lo", iff_up | iff_loopback | iff_running, ""};
	long fd = must(socket, af_inet, sock_dgram | O_CLOEXEC, 0);
	must(ioctl, fd, SIOCSIFFLAGS, &lo);
	must(close, fd);
}

static void join_keyring(void) {
	ABOUT("keyring");
	long key = must(keyctl, KEYCTL_JOIN_SESSION_KEYRING, "_ses.floor", 0, 0, 0);
	char about[256];
	must(keyctl, KEYCTL_DESCRIBE, key, about, sizeof about, 0);
	// KEY_USR_SEARCH beside what it has: runc's own choice
	unsigned long have = 0;
	for (unsigned i = 0, semicolons = 0; about[i] && about[i] != 0; i++) {
		if (semicolons == 3) {
			char c = about[i];
			if (c == ';') break;
			have = have * 16 + (unsigned long)(c <= '9' ? c - '0' : c - 'a' + 10);
		} else if (about[i] == ';') semicolons++;
	}
	must(keyctl, KEYCTL_SETPERM, key, have | 0x080000, 0, 0);
}

static void load_filter(void) {
	struct sock_fprog program = {.len = (unsigned short)instructions, .filter = filter};
	if (instructions) must(seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
}

// The tail that `exec` shares. Without no_new_privs only CAP_SYS_ADMIN may load a filter, so that comes before capabilities go.
static void become_process(void) {
	ABOUT("process");
	if (!docker) {
		struct rlimit64 files = {1024, 1024};
		must(prlimit64, 0, 7 /* RLIMIT_NOFILE */, &files, 0);
	}
	must(umask, 022);
	if (docker) load_filter();
	int group = 0;
	must(setgroups, docker, &group);
	must(setgid, 0);
	must(setuid, 0);
	unsigned long keep = docker ? caps_of_docker : caps_of_default;
	for (unsigned i = 0; i <= CAP_LAST_CAP; i++) if (!(keep >> i & 1)) must(prctl, PR_CAPBSET_DROP, i, 0, 0, 0);
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct sets[2] = {
		{(unsigned)keep, (unsigned)keep, 0}, {(unsigned)(keep >> 32), (unsigned)(keep >> 32), 0},
	};
	must(capset, &head, sets);
	must(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (!docker) must(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	unsigned long no_signal = 0;
	must(rt_sigprocmask, sig_setmask, &no_signal, 0, sizeof no_signal);
	must(close_range, 3, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);
	if (!docker) load_filter();
}

_Noreturn static void execute(const char *who) {
	(void)who;
	print_trace(who);
	must(execve, argv_[ARGS], argv_ + ARGS, envp_);
	leave(125);
}

static void read_filter(void) {
	if (!*argv_[FILTER]) return;
	ABOUT("filter");
	long fd = must(openat, AT_FDCWD, argv_[FILTER], O_CLOEXEC);
	instructions = must(read, fd, filter, sizeof filter) / (long)sizeof *filter;
	must(close, fd);
}

static long barrier = -1;

static void container(void) {
	read_filter();
	if (same(argv_[VERB], "create")) {
		char path[512];
		put(put(path, argv_[STATE]), "/start");
		// Opened for both ways: neither end waits for the other.
		barrier = must(openat, AT_FDCWD, path, o_rdwr | O_CLOEXEC);
		put(put(path, argv_[STATE]), "/up");
		must(openat, AT_FDCWD, path, o_rdwr | O_CLOEXEC);
	}
	if (v2) must(unshare, CLONE_NEWCGROUP);
	must(umask, 0);
	must(setsid);
	join_keyring();
	mount_all();
	make_devices();
	bring_up_loopback();
	const char *name = docker ? "0206ffb4196f" : "runc";
	must(sethostname, name, length(name));
	enter_root();
	if (barrier >= 0) {
		char word = 0;
		must(write, number(argv_[PID]), &word, 1);
		must(read, barrier, &word, 1);
	}
	become_process();
	execute("init");
}

// On the sealed image's memory, as a sibling of init.
static void process(void) {
	must(setsid);
	join_keyring();
	if (docker) write_file("/proc/self/oom_score_adj", "0");
	become_process();
	execute("process");
}

static void enter(void) {
	read_filter();
	long pidfd = must(pidfd_open, number(argv_[PID]), 0);
	unsigned long all = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | (v2 ? CLONE_NEWCGROUP : 0);
	must(setns, pidfd, all);
	static char stack[16384] __attribute__((aligned(16)));
	struct clone_args a = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_PARENT, .stack = (unsigned long)stack, .stack_size = sizeof stack,
	};
	must_("clone3", clone_child(&a, sizeof a, process));
	leave(0);
}

__attribute__((used)) _Noreturn static void start(long *stack) {
	argv_ = (char **)(stack + 1);
	envp_ = argv_ + stack[0] + 1;
	docker = same(argv_[CONFIG], "docker");
	v2 = !*argv_[HIERARCHIES];
	if (same(argv_[VERB], "exec")) enter();
	else container();
	leave(125);
}
#endif

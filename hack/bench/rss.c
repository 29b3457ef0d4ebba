// rss FILE PROGRAM ARG...: executes PROGRAM, and writes the greatest peak resident set of it and of all that it leaves behind,
// in kB, to FILE. Without arguments it only ends: the least process that a container can have.
//
// A program of its own because a process's peak counts what it was before its execve: the harness itself is larger than
// some of the runtimes that it would measure.

#include "raw.h"
#include <linux/prctl.h>

static char **program, **envp_;

static void child(void) {
	must(execve, program[0], program, envp_);
	leave(125);
}

__attribute__((used)) _Noreturn static void start(long *stack) {
	char **argv = (char **)(stack + 1), text[32];
	envp_ = argv + stack[0] + 1;
	if (stack[0] < 3) leave(0);
	program = argv + 2;
	must(prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	static char own_stack[16384] __attribute__((aligned(16)));
	struct clone_args a = {
		.flags = CLONE_VM | CLONE_VFORK, .exit_signal = 17 /* SIGCHLD */,
		.stack = (unsigned long)own_stack, .stack_size = sizeof own_stack,
	};
	long first = must_("clone3", clone_child(&a, sizeof a, child)), pid;
	struct { long user[2], system[2], maxrss, rest[13]; } usage;
	long peak = 0;
	int status = 0, result = 125;
	while ((pid = sys(wait4, -1, &status, 0, &usage)) != -ECHILD) {
		must_("wait4", pid);
		if (usage.maxrss > peak) peak = usage.maxrss;
		if (pid == first) result = status & 0x7f ? 128 + (status & 0x7f) : status >> 8;
	}
	long fd = must(openat, AT_FDCWD, argv[1], 01 | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	*put_number(text, (unsigned long)peak) = 0;
	must(write, fd, text, length(text));
	leave(result);
}

// step FILE PROGRAM ARG...: executes PROGRAM one instruction at a time, and adds the addresses below 16 MiB at which it was to FILE,
// each once, as 16 hexadecimal digits a line; its children, too, up to their execve. Exits as PROGRAM does.

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOP (16UL << 20)

static unsigned char been[TOP];

static void must(int ok, const char *what) {
	if (ok) return;
	perror(what);
	exit(125);
}

int main(int count, char **args) {
	if (count < 3) {
		fprintf(stderr, "usage: step FILE PROGRAM ARG...\n");
		return 125;
	}
	pid_t child = fork();
	must(child >= 0, "fork");
	if (child == 0) {
		must(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0, "PTRACE_TRACEME");
		execv(args[2], args + 2);
		must(0, args[2]);
	}
	// Children run in the same memory up to their execve.
	int status, result = 125;
	must(waitpid(child, &status, 0) == child, "waitpid");
	must(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC) == 0,
	     "PTRACE_SETOPTIONS");
	for (pid_t one = child; one > 0; one = waitpid(-1, &status, __WALL)) {
		if (!WIFSTOPPED(status)) {
			if (one != child) continue;
			result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
			break;
		}
		struct user_regs_struct at;
		int event = status >> 16, signal = WSTOPSIG(status);
		if (one != child && event == PTRACE_EVENT_EXEC) {
			ptrace(PTRACE_DETACH, one, 0, 0);
			continue;
		}
		if (ptrace(PTRACE_GETREGS, one, 0, &at) == 0 && at.rip < TOP) been[at.rip] = 1;
		if (event || signal == SIGTRAP || signal == SIGSTOP) signal = 0;
		ptrace(PTRACE_SINGLESTEP, one, 0, signal);
	}
	FILE *file = fopen(args[1], "a");
	must(file != NULL, args[1]);
	for (unsigned long i = 0; i < TOP; i++)
		if (been[i]) fprintf(file, "%016lx\n", i);
	must(fclose(file) == 0, args[1]);
	return result;
}

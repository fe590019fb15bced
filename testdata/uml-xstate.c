/*
 * Lets User Mode Linux 6.1 run on processors with AMX, whose register state is larger than it knows.
 *
 * Linux takes new registers of a traced process (PTRACE_SETREGSET, NT_X86_XSTATE) only in a buffer of the full size,
 * 11008 bytes with AMX; User Mode Linux brings 2696, and dies with "ptrace set fp regs failed". This library, loaded
 * with LD_PRELOAD, reads the full state, lays what User Mode Linux brings over its start, and writes that.
 *
 * testdata/make builds and loads it: cc -shared -fPIC -o uml-xstate.so uml-xstate.c
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

long ptrace(enum __ptrace_request request, ...)
{
	static long (*real)(int, ...);
	static _Thread_local char full[1 << 16];
	va_list args;
	va_start(args, request);
	int pid = va_arg(args, int);
	void *addr = va_arg(args, void *), *data = va_arg(args, void *), *more = va_arg(args, void *);
	va_end(args);
	if (!real)
		real = (long (*)(int, ...))dlsym(RTLD_NEXT, "ptrace");
	if (request == PTRACE_SETREGSET && addr == (void *)NT_X86_XSTATE) {
		struct iovec *brought = data, whole = { full, sizeof full };
		long r = real(PTRACE_GETREGSET, pid, addr, &whole);
		if (r == 0 && brought->iov_len < whole.iov_len) {
			memcpy(full, brought->iov_base, brought->iov_len);
			return real(PTRACE_SETREGSET, pid, addr, &whole);
		}
	}
	return real(request, pid, addr, data, more);
}

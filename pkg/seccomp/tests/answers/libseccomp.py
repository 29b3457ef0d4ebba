"""libseccomp's answers, for libseccomp.rs: one JSON request a line in, one JSON answer a line out.

{"numbers": [name, ...], "arches": [SCMP_ARCH_*, ...]}
    -> {"numbers": {arch: {name: number}}}         without names it does not know; negative: not on that architecture
{"profile": linux.seccomp, "native": SCMP_ARCH_*}
    -> {"bpf": hex}                                in the byte order of the profile's architectures
    -> {"refused": errno, "entry": index}          for a rule it does not take
    -> {"unknown": SCMP_ARCH_*}                    for an architecture it does not know

The profile is read as runc reads it (libcontainer/seccomp). Exits with 77 where there is no libseccomp.
"""

import ctypes
import json
import os
import sys
import tempfile

try:
    lib = ctypes.CDLL(os.environ.get("LIBSECCOMP", "libseccomp.so.2"))
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(77)


class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


context = ctypes.c_void_p
lib.seccomp_init.restype = context
lib.seccomp_init.argtypes = [ctypes.c_uint32]
lib.seccomp_release.argtypes = [context]
lib.seccomp_arch_add.argtypes = [context, ctypes.c_uint32]
lib.seccomp_arch_remove.argtypes = [context, ctypes.c_uint32]
lib.seccomp_arch_resolve_name.restype = ctypes.c_uint32
lib.seccomp_attr_set.argtypes = [context, ctypes.c_int, ctypes.c_uint32]
lib.seccomp_rule_add_array.argtypes = [
    context, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison),
]
lib.seccomp_export_bpf.argtypes = [context, ctypes.c_int]

CTL_OPTIMIZE = 8
EEXIST = 17
OPERATORS = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]
ACTIONS = {
    "KILL": 0, "KILL_THREAD": 0, "KILL_PROCESS": 0x80000000, "TRAP": 0x30000, "ERRNO": 0x50000, "NOTIFY": 0x7FC00000,
    "TRACE": 0x7FF00000, "LOG": 0x7FFC0000, "ALLOW": 0x7FFF0000,
}


def token(arch):
    return lib.seccomp_arch_resolve_name(arch.removeprefix("SCMP_ARCH_").lower().encode())


def action(name, errno):
    name = name.removeprefix("SCMP_ACT_")
    return ACTIONS[name] | ((1 if errno is None else errno) if name in ("ERRNO", "TRACE") else 0)


def comparison(arg):
    op = OPERATORS.index(arg["op"].removeprefix("SCMP_CMP_")) + 1
    return Comparison(arg["index"], op, arg["value"], arg.get("valueTwo", 0))


def numbers(request):
    answer = {}
    for arch in request["arches"]:
        if token(arch):
            resolve = lambda name: lib.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(token(arch)), name.encode())
            answer[arch] = {name: number for name in request["numbers"] if (number := resolve(name)) != -1}
    return {"numbers": answer}


def export(ctx):
    with tempfile.TemporaryFile() as file:
        if code := lib.seccomp_export_bpf(ctx, file.fileno()):
            raise SystemExit(f"seccomp_export_bpf: {code}")
        file.seek(0)
        return file.read().hex()


def add_rules(ctx, profile, default):
    for index, entry in enumerate(profile.get("syscalls", [])):
        value = action(entry["action"], entry.get("errnoRet"))
        if value == default:
            continue
        args = entry.get("args") or []
        indices = [arg["index"] for arg in args]
        alternatives = [args] if len(indices) == len(set(indices)) else [[arg] for arg in args]
        for name in entry["names"]:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            if number == -1:
                continue
            for conditions in alternatives:
                array = (Comparison * max(1, len(conditions)))(*map(comparison, conditions))
                if code := lib.seccomp_rule_add_array(ctx, value, number, len(conditions), array):
                    return {"refused": -code, "entry": index}
    return None


def compile_profile(request):
    profile, native = request["profile"], request["native"]
    arches = [native] + (profile.get("architectures") or [])
    for arch in arches:
        if not token(arch):
            return {"unknown": arch}
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    ctx = lib.seccomp_init(default)
    try:
        if native != "SCMP_ARCH_X86_64":
            lib.seccomp_arch_remove(ctx, token("SCMP_ARCH_X86_64"))
        for arch in arches:
            code = lib.seccomp_arch_add(ctx, token(arch))
            if code not in (0, -EEXIST):
                return {"refused": -code, "entry": None}
        if sum(len(entry["names"]) for entry in profile.get("syscalls", [])) > 32:
            lib.seccomp_attr_set(ctx, CTL_OPTIMIZE, 2)
        return add_rules(ctx, profile, default) or {"bpf": export(ctx)}
    finally:
        lib.seccomp_release(ctx)


for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(numbers(request) if "numbers" in request else compile_profile(request)))

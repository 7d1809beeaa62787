"""no_bpf.py COMMAND…: runs it on a kernel that, as far as it can tell, has no bpf(2): the call fails with ENOSYS."""
import ctypes, os, platform, struct, sys

NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
ENOSYS, ALLOW, ERRNO = 38, 0x7FFF0000, 0x00050000


def instruction(code, yes, no, value):
    return struct.pack("=HBBI", code, yes, no, value)


# A classic filter over struct seccomp_data: the number of the call is its first word.
program = b"".join([
    instruction(0x20, 0, 0, 0),
    instruction(0x15, 0, 1, NUMBER),
    instruction(0x06, 0, 0, ERRNO | ENOSYS),
    instruction(0x06, 0, 0, ALLOW),
])
code = ctypes.create_string_buffer(program, len(program))
header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_void_p] * 4
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, FILTER = 22, 38, 2
for words in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER, ctypes.addressof(header), 0, 0)]:
    if libc.prctl(*words) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])

"""Somebody else's program: sends every IPv4 connect of a cgroup's processes to ADDRESS:PORT, for as long as standard input is open.
Usage: foreign.py CGROUP ADDRESS PORT. Needs root; speaks bpf(2) itself, as any tool on the host may."""
import ctypes, os, platform, socket, struct, sys

cgroup, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = libc.syscall(NUMBER, command, buffer, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def native(network):
    return struct.unpack("=i", network.ljust(4, b"\0"))[0]


def instruction(code, registers, offset, value):
    return struct.pack("=BBhi", code, registers, offset, value)


# struct bpf_sock_addr: user_ip4 at 4, user_port at 24, both in network order.
program = b"".join([
    instruction(0xB4, 0x02, 0, native(socket.inet_aton(address))),
    instruction(0x63, 0x21, 4, 0),
    instruction(0xB4, 0x02, 0, native(struct.pack("!H", port))),
    instruction(0x63, 0x21, 24, 0),
    instruction(0xB7, 0x00, 0, 1),
    instruction(0x95, 0x00, 0, 0),
])
code, licence = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"GPL")
CGROUP_SOCK_ADDR, INET4_CONNECT, PROG_LOAD, LINK_CREATE = 18, 10, 5, 28
loaded = bpf(PROG_LOAD, struct.pack(
    "=IIQQIIQII16sII", CGROUP_SOCK_ADDR, len(program) // 8, ctypes.addressof(code), ctypes.addressof(licence),
    0, 0, 0, 0, 0, b"foreign", 0, INET4_CONNECT))
link = bpf(LINK_CREATE, struct.pack("=IIII", loaded, os.open(cgroup, os.O_RDONLY), INET4_CONNECT, 0))
print("attached", flush=True)
sys.stdin.read()

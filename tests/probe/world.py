"""world.py BRIDGE PORT...: what is elsewhere, in a container's network: addresses that are nobody's on this machine, and who answers there.

What is said at one of the ports, at any address, is said again at the bridge's. At port 80 of metadata services there is an answer, at
127.0.0.11 a resolver. As the gateway does, something listens at 198.18.0.1, at a port that nobody is told. It prints "up" when it listens.
"""
import ipaddress, socket, subprocess, sys, threading

bridge, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
v4 = int(ipaddress.ip_address(bridge))
METADATA = ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200"]
# A global one, and what stands for the bridge's behind NAT64, 6to4 and Teredo.
SIX = ["2001:db8::1"] + [str(ipaddress.IPv6Address(number)) for number in (0x64FF9B << 96 | v4, 0x2002 << 112 | v4 << 80, 0x20010000 << 96 | v4 ^ 0xFFFFFFFF)]
for address in METADATA + SIX:
    subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)
subprocess.run(["ip", "route", "add", "local", "198.18.0.0/15", "dev", "lo"], check=True)


def answer(client, port):
    with client:
        said = client.recv(4096)
        if port in ports:
            with socket.create_connection((bridge, port), 5) as there:
                there.sendall(said)
        client.sendall(b"answer")


def accept(listener, port):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=answer, args=(client, port), daemon=True).start()


listeners = [(socket.create_server(("::", port), family=socket.AF_INET6), port) for port in ports]
listeners += [(socket.create_server((address, 80)), 80) for address in METADATA]
listeners.append((socket.create_server(("198.18.0.1", 0)), 0))
for listener in listeners:
    threading.Thread(target=accept, args=listener, daemon=True).start()
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
resolver.bind(("127.0.0.11", 53))
print("up", flush=True)
while True:
    question, asker = resolver.recvfrom(4096)
    resolver.sendto(question[:2] + b"\x81\x83" + question[4:], asker)

//! The attempts that the probe makes, one test each. Their numbers are those of the list of attempts; a letter tells variants apart.

use agentcontainer_tests::attempt::Attempt;
use agentcontainer_tests::attempt::Verdict::{Gain, Receiver};

use crate::batch::judge;

macro_rules! attempts {
    ($($(#[$meta:meta])* $test:ident $id:literal $title:literal $control:expr, $verdict:expr;)*) => {
        pub const ATTEMPTS: &[Attempt] = &[$(Attempt { id: $id, title: $title, control: $control, verdict: $verdict }),*];
        $(#[test] $(#[$meta])* fn $test() { judge($id); })*
    };
}

const IPV6: &str =
    "--sysctl net.ipv6.conf.all.disable_ipv6=0 --sysctl net.ipv6.conf.default.disable_ipv6=0";
const UNCONFINED: &str = "--security-opt seccomp=unconfined";
const PRIVILEGED: &str = "--cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add SYS_PTRACE --security-opt seccomp=unconfined --security-opt apparmor=unconfined";
/// Where those answer that are nobody's on this machine.
const ELSEWHERE: &str = "--network container:WORLD";
const CGROUPS: &str =
    "--cgroupns host -v /sys/fs/cgroup:/sys/fs/cgroup:rw --security-opt apparmor=unconfined";

attempts! {
    n01_a_raw_address_over_tcp "N01" "connect to a raw IPv4 address" "", Receiver;
    n02_a_raw_ipv6_address "N02" "connect to a link-local IPv6 address" IPV6, Receiver;
    n02_a_raw_ipv6_address_over_udp "N02u" "datagram to a link-local IPv6 address" IPV6, Receiver;
    n02_a_global_ipv6_address "N02g" "connect to a global IPv6 address" ELSEWHERE, Receiver;
    n03_an_ipv4_mapped_address "N03" "connect to ::ffff:IPv4" "", Receiver;
    n03_an_ipv4_mapped_address_over_udp "N03u" "datagram to ::ffff:IPv4" "", Receiver;
    n04_addresses_that_embed_an_ipv4_address "N04" "NAT64, 6to4, Teredo, ISATAP, compatible" ELSEWHERE, Receiver;
    n05_addresses_of_its_own "N05" "0.0.0.0, ::, unique local and link-local IPv6" "--network host", Receiver;
    n06_a_datagram "N06" "sendto over UDP" "", Receiver;
    n07_a_batch_of_datagrams "N07" "sendmmsg, the second message to a denied address" "", Receiver;
    n09_an_ipv4_address_on_an_ipv6_socket "N09" "sockaddr_in on an AF_INET6 socket" "", Receiver;
    n10_connected_udp "N10" "connected UDP" "", Receiver;
    n11_reconnected_udp "N11" "UDP: allowed, AF_UNSPEC, denied" "", Receiver;
    n12_connected_udp_to_another_address "N12" "connected UDP, sendto elsewhere" "", Receiver;
    n13_tcp_fast_open "N13" "sendto with MSG_FASTOPEN" "", Receiver;
    n13_tcp_fast_open_connect "N13c" "TCP_FASTOPEN_CONNECT" "", Receiver;
    n14_a_ping_socket "N14" "data in ICMP echo from a ping socket" "--sysctl net.ipv4.ping_group_range=0\u{a0}2147483647", Receiver;
    n15_a_raw_socket "N15" "raw socket with its own IP header" "", Receiver;
    n16_a_packet_socket "N16" "a frame through AF_PACKET" "", Receiver;
    n19_udp_lite "N19" "UDP-Lite" "", Receiver;
    n20_mptcp "N20" "multipath TCP" UNCONFINED, Receiver;
    n22_every_socket_family "N22" "sockets of every family" PRIVILEGED, Gain;
    n22_every_ip_protocol "N22p" "sockets of every IP protocol" PRIVILEGED, Gain;
    n22_netlink_but_routing "N22n" "netlink other than routing" PRIVILEGED, Gain;
    n24_io_uring "N24" "io_uring, which seccomp does not see into" UNCONFINED, Gain;
    n27_marks_and_devices "N27" "SO_MARK, SO_BINDTODEVICE, IP_TRANSPARENT, then connect" "", Receiver;
    n27_the_gateways_source_address "N27t" "bind to the gateway's address" "--cap-add NET_ADMIN", Gain;
    n28_tunnel_devices "N28" "gre, sit, wireguard, veth … devices" "--cap-add NET_ADMIN", Gain;
    n28_a_route_of_its_own "N28r" "a route" "--cap-add NET_ADMIN", Gain;
    n30_quic_to_an_allowed_name "N30" "UDP 443 to a name allowed on 443" "", Receiver;
    n31_another_port_of_an_allowed_name "N31" "another port of an allowed name" "", Receiver;
    n33_a_mount "N33" "mount" PRIVILEGED, Gain;
    c01_sockets_of_the_host "C01" "a Unix socket of the host to be handed a descriptor by" "-v ENGINE_SOCKET:/run/engine.sock", Gain;
    c02_descriptors_that_came_along "C02" "sockets among the inherited descriptors" "--entrypoint /probe/hands", Gain;
    c04_another_cgroup "C04" "write cgroup.procs" CGROUPS, Gain;
    c04_the_cgroup_tree "C04m" "mount the cgroup tree" PRIVILEGED, Gain;
    c10_a_user_namespace "C10" "unshare a user namespace" UNCONFINED, Gain;
    c10_a_user_namespace_by_clone3 "C10c" "clone3 a user namespace" UNCONFINED, Gain;
    c11_a_network_namespace "C11" "unshare a network namespace" PRIVILEGED, Gain;
    c11_somebody_elses_namespace "C11j" "join another network namespace" "--pid container:NEIGHBOUR --cap-add SYS_ADMIN --cap-add SYS_PTRACE --security-opt seccomp=unconfined --security-opt apparmor=unconfined", Gain;
    c14_other_processes "C14" "see the enforcer, the gateway or the engine" "--pid host", Gain;
    c14_the_memory_of_pid_1 "C14m" "write pid 1's memory" "", Gain;
    c14_tracing_pid_1 "C14p" "ptrace pid 1" UNCONFINED, Gain;
    c17_abstract_unix_sockets "C17" "connect to every Unix socket in sight" "--network container:NEIGHBOUR", Gain;
    c18_variables_of_the_host "C18" "sockets and helpers named by the environment" "-e SSH_AUTH_SOCK=/x -e BROWSER=x", Gain;
    c19_services_on_loopback "C19" "scan 127.0.0.1 and ::1 for anything but its own" "--network container:NEIGHBOUR", Gain;
    c20_names_of_the_host "C20" "host.docker.internal and its kin" "--add-host host.docker.internal:BRIDGE", Receiver;
    c21_metadata_services "C21" "metadata addresses" ELSEWHERE, Gain;
    c22_service_account_tokens "C22" "tokens of an orchestrator" "-v /etc/hostname:/run/secrets/kubernetes.io/serviceaccount:ro", Gain;
    d01_data_in_names "D01" "data in the labels of any name" "--dns BRIDGE", Receiver;
    d02_data_under_an_allowed_wildcard "D02" "data in labels under an allowed wildcard, looked up only" "--dns BRIDGE", Receiver;
    d03_another_resolver "D03" "a resolver of its own choice over UDP" "", Receiver;
    d03_another_resolver_over_tcp "D03t" "a resolver of its own choice over TCP" "", Receiver;
    d03_the_engines_resolver "D03e" "the engine's resolver at 127.0.0.11" ELSEWHERE, Gain;
    d04_other_record_types "D04" "TXT, NULL, SVCB, ANY and other types" "--dns BRIDGE", Receiver;
    d19_spellings_of_a_denied_name "D19" "case, trailing dot, full-width dots of a denied name" "--add-host DENIED:BRIDGE", Receiver;
    e01_a_denied_program_under_another_name "E01" "copy, rename or link a denied program" "", Gain;
    e02_a_denied_program_by_the_loader "E02" "the loader on a denied program" "", Gain;
    e03_a_denied_program_by_a_descriptor "E03" "a denied program by a descriptor, or read into memory" "", Gain;
    e07_a_denied_program_by_another_path "E07" "a denied program by /proc/self/root, relative, from a directory" "", Gain;
    k07_bpf "K07" "make a BPF map" PRIVILEGED, Gain;
    k07_a_bpf_filesystem "K07f" "mount bpffs" PRIVILEGED, Gain;
    k14_the_control_channel "K14" "the enforcer's socket" "-v STATE:/state", Gain;
    k15_typing_into_a_terminal "K15" "TIOCSTI" "", Gain;
    x01_a_synthetic_address "X01" "bind a synthetic address" "--sysctl net.ipv4.ip_nonlocal_bind=1", Gain;
    x03_the_gateways_listener "X03" "dial the gateway's listener, as /proc/net shows it, and addresses handed to nobody" ELSEWHERE, Gain;
}

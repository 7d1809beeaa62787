//! `ip address add ADDRESS/8 dev lo` and `ip route add local NETWORK dev lo src 127.0.0.1` in the calling thread's network namespace (rtnetlink(7)): every
//! address of the network is then local (AnyIP), with loopback as the source.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use schema::net::Cidr;

/// The table of local addresses (kernel include/uapi/linux/rtnetlink.h).
const RT_TABLE_LOCAL: u8 = 255;
/// LOOPBACK_IFINDEX.
const LOOPBACK: u32 = 1;

fn local_route(network: Cidr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = netlink_packet_route::AddressFamily::Inet;
    message.header.destination_prefix_length = network.prefix();
    message.header.table = RT_TABLE_LOCAL;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Host;
    message.header.kind = RouteType::Local;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(network.addr())),
        RouteAttribute::Oif(LOOPBACK),
        RouteAttribute::PrefSource(RouteAddress::Inet(Ipv4Addr::LOCALHOST)),
    ];
    message
}

pub fn add_local(network: Cidr) -> io::Result<()> {
    let message = RouteNetlinkMessage::NewRoute(local_route(network));
    request(message, NLM_F_CREATE | NLM_F_REPLACE)
}

/// One more address of the loopback device.
pub fn add_address(address: Ipv4Addr) -> io::Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = netlink_packet_route::AddressFamily::Inet;
    message.header.prefix_len = 8;
    message.header.scope = AddressScope::Host;
    message.header.index = LOOPBACK;
    message.attributes = vec![
        AddressAttribute::Address(address.into()),
        AddressAttribute::Local(address.into()),
    ];
    let message = RouteNetlinkMessage::NewAddress(message);
    request(message, NLM_F_CREATE | NLM_F_REPLACE)
}

pub fn remove_local(network: Cidr) -> io::Result<()> {
    request(RouteNetlinkMessage::DelRoute(local_route(network)), 0)
}

fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    packet.header.sequence_number = 1;
    packet.finalize();
    let mut buffer = vec![0; packet.header.length as usize];
    packet.serialize(&mut buffer);
    socket.send(&buffer, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|e| io::Error::other(format!("rtnetlink answered what cannot be read: {e}")))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("rtnetlink did not acknowledge")),
    }
}

//! How the gateway dials: what the host's `config.toml` says under `[gateway]` and what the effective policy carries to
//! it. One pair of types for the file, the policy and the gateway.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::host::{HostError, HostName};

/// Who turns names into addresses. As text: `system` or `1.2.3.4:53`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolver {
    /// The name servers of the system that the gateway runs on.
    #[default]
    System,
    Address(SocketAddr),
}

/// A forward proxy that every dial goes through with CONNECT. As text: `http://proxy.corp:3128`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProxy {
    pub host: ProxyHost,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyHost {
    Name(HostName),
    Address(IpAddr),
}

/// Why a text is neither a resolver nor a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GatewayError {
    #[error("a resolver is `system` or an address and port such as `1.2.3.4:53`")]
    Resolver,
    #[error("a proxy is `http://HOST:PORT`, without user, path or query")]
    Proxy,
    #[error("port 0 is no port")]
    PortZero,
    #[error(transparent)]
    Host(#[from] HostError),
}

// === impl Resolver ===

impl FromStr for Resolver {
    type Err = GatewayError;

    fn from_str(text: &str) -> Result<Self, GatewayError> {
        if text == "system" {
            return Ok(Self::System);
        }
        let address: SocketAddr = text.parse().map_err(|_| GatewayError::Resolver)?;
        if address.port() == 0 {
            Err(GatewayError::PortZero)
        } else {
            Ok(Self::Address(address))
        }
    }
}

impl fmt::Display for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

// === impl HttpProxy ===

impl FromStr for HttpProxy {
    type Err = GatewayError;

    fn from_str(text: &str) -> Result<Self, GatewayError> {
        let rest = text.strip_prefix("http://").ok_or(GatewayError::Proxy)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = authority.rsplit_once(':').ok_or(GatewayError::Proxy)?;
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(GatewayError::Proxy);
        }
        let port: u16 = port.parse().map_err(|_| GatewayError::Proxy)?;
        if port == 0 {
            return Err(GatewayError::PortZero);
        }
        let v6 = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match (v6, host.parse::<std::net::Ipv4Addr>()) {
            (Some(v6), _) => {
                ProxyHost::Address(IpAddr::V6(v6.parse().map_err(|_| GatewayError::Proxy)?))
            }
            (None, Ok(v4)) => ProxyHost::Address(IpAddr::V4(v4)),
            (None, Err(_)) => ProxyHost::Name(HostName::parse(host)?),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            ProxyHost::Address(IpAddr::V6(v6)) => write!(f, "http://[{v6}]:{}", self.port),
            ProxyHost::Address(v4) => write!(f, "http://{v4}:{}", self.port),
            ProxyHost::Name(name) => write!(f, "http://{name}:{}", self.port),
        }
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_text!(Resolver);
as_text!(HttpProxy);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_resolver_is_the_system_or_an_address_with_a_port() {
        for text in ["system", "1.2.3.4:53", "[::1]:53"] {
            assert_eq!(text.parse::<Resolver>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "System",
            "1.2.3.4",
            "dns.example:53",
            "1.2.3.4:0",
            "1.2.3.4:70000",
        ] {
            assert!(text.parse::<Resolver>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_proxy_is_http_with_a_host_and_a_port_and_nothing_else() {
        for text in [
            "http://proxy.corp:3128",
            "http://10.0.0.1:8080",
            "http://[fd00::1]:1",
        ] {
            assert_eq!(text.parse::<HttpProxy>().unwrap().to_string(), text);
        }
        assert_eq!(
            "http://P.corp:1/".parse::<HttpProxy>().unwrap().to_string(),
            "http://p.corp:1"
        );
        for text in [
            "",
            "proxy:1",
            "https://p:1",
            "http://p",
            "http://p:0",
            "http://u:p@h:1",
            "http://p:1/x",
            "http://p:+1",
            "http://:1",
            "http://2130706433:1",
            "socks5://p:1",
            "http://p:65536",
        ] {
            assert!(text.parse::<HttpProxy>().is_err(), "{text}");
        }
    }
}

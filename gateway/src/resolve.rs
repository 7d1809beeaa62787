//! Real addresses of names, asked for only after a connection was allowed. The host's `hosts` win over the resolver;
//! `/etc/resolv.conf` is read once, before the sandbox closes the file system. Called by `dial`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use schema::host::HostName;

/// Queries sent again before a name counts as unresolvable.
const ATTEMPTS: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(3);
const CACHE: u64 = 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("the host has no usable resolver configuration")]
    NoResolver,
    #[error("{0}")]
    Failed(String),
}

/// What `/etc/resolv.conf` said at start.
#[derive(Clone, Debug, Default)]
pub struct System(Option<(ResolverConfig, ResolverOpts)>);

impl System {
    /// Reads it. A host without one can still dial by `hosts`, by a named resolver and by address.
    pub fn read() -> Self {
        Self(hickory_resolver::system_conf::read_system_conf().ok())
    }
}

/// Where to ask.
#[derive(Clone)]
pub struct Resolver(Option<TokioResolver>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Resolver").field(&self.0.is_some()).finish()
    }
}

impl Resolver {
    pub fn system(system: &System) -> Self {
        match &system.0 {
            Some((config, options)) => {
                // Search lists and domains are left behind: every name is asked as it stands.
                let servers = config.name_servers().to_vec();
                Self::build(servers, options.clone())
            }
            None => Self(None),
        }
    }

    pub fn address(server: SocketAddr) -> Self {
        let mut config = NameServerConfig::udp_and_tcp(server.ip());
        for connection in &mut config.connections {
            connection.port = server.port();
        }
        let mut options = ResolverOpts::default();
        options.timeout = TIMEOUT;
        Self::build(vec![config], options)
    }

    fn build(servers: Vec<NameServerConfig>, mut options: ResolverOpts) -> Self {
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        options.cache_size = CACHE;
        options.attempts = options.attempts.min(ATTEMPTS);
        options.timeout = options.timeout.min(TIMEOUT);
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        Self(builder.build().ok())
    }

    /// IPv4 addresses, or, where there are none, IPv6 addresses.
    pub async fn lookup(&self, name: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
        let resolver = self.0.as_ref().ok_or(ResolveError::NoResolver)?;
        let found = resolver
            .lookup_ip(format!("{name}."))
            .await
            .map_err(|error| ResolveError::Failed(error.to_string()))?;
        Ok(found.iter().collect())
    }
}

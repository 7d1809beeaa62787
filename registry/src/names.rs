//! Names of registries and of their token services, looked up once for all references of a command.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::OnceCell;

type Known = Arc<OnceCell<Vec<IpAddr>>>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Hickory, as the host's files say: a static glibc resolves no names.
#[derive(Clone, Default)]
struct System(Arc<OnceCell<TokioResolver>>);

/// A resolver that is asked about a name once, whoever wants to know at the same time or later.
#[derive(Clone)]
pub struct Names {
    inner: Arc<dyn Resolve>,
    known: Arc<Mutex<HashMap<String, Known>>>,
}

// === impl System ===

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        let system = self.clone();
        Box::pin(async move {
            let made = system.0.get_or_try_init(async || {
                let mut builder = TokioResolver::builder_tokio()?;
                builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
                builder.build()
            });
            let found = made.await?.lookup_ip(name.as_str()).await?;
            let all: Vec<IpAddr> = found.iter().collect();
            Ok(addresses(all))
        })
    }
}

// === impl Names ===

impl Names {
    pub fn system() -> Self {
        Self::of(Arc::new(System::default()))
    }

    fn of(inner: Arc<dyn Resolve>) -> Self {
        Self {
            inner,
            known: Arc::default(),
        }
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let known = {
                let known = names.known.lock();
                let mut known = known.unwrap_or_else(|poisoned| poisoned.into_inner());
                known.entry(name.as_str().to_owned()).or_default().clone()
            };
            // One that fails is tried again by the next.
            let found = known.get_or_try_init(async || {
                let found = names.inner.resolve(name).await?;
                Ok::<_, Failed>(found.map(|address| address.ip()).collect())
            });
            Ok(addresses(found.await?.clone()))
        })
    }
}

/// The port is the request's.
fn addresses(all: Vec<IpAddr>) -> Addrs {
    Box::new(all.into_iter().map(|ip| SocketAddr::new(ip, 0)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[derive(Clone, Default)]
    struct Counting(Arc<AtomicUsize>);

    impl Resolve for Counting {
        fn resolve(&self, _: Name) -> Resolving {
            let asked = self.0.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if asked == 0 {
                    return Err("not now".into());
                }
                Ok(addresses(vec![IpAddr::from([192, 0, 2, 1])]))
            })
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_everybody_and_again_only_where_that_failed() {
        let inner = Counting::default();
        let names = Names::of(Arc::new(inner.clone()));
        let ask = || names.resolve("r.test".parse().unwrap());
        assert!(ask().await.is_err());
        let all = futures_util::future::join_all((0..50).map(|_| ask())).await;
        for found in all {
            let found: Vec<_> = found.unwrap().collect();
            assert_eq!(found, [SocketAddr::from(([192, 0, 2, 1], 0))]);
        }
        assert_eq!(inner.0.load(Ordering::SeqCst), 2);
        assert!(names.resolve("q.test".parse().unwrap()).await.is_ok());
        assert_eq!(inner.0.load(Ordering::SeqCst), 3);
    }
}

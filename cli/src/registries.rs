//! The host's registries: how they are asked, what the person is logged in with, and how their errors are said.

use registry::cache::Cache;
use registry::client::Client;
use registry::error::RegistryError;
use registry::http::Settings;
use registry::login;
use schema::diag::Diagnostic;
use schema::hostconfig::HostConfig;
use schema::image::ImageRef;

use crate::places::Places;
use crate::progress;
use crate::report::Failure;
use crate::roots;

/// A client of every registry.
pub fn client(places: &Places, host: &HostConfig, offline: bool) -> Result<Client, Failure> {
    let mut settings = Settings::new(roots::if_any(host)?);
    settings.plain_http = host
        .registries
        .iter()
        .filter(|(_, config)| config.value.plain_http)
        .map(|(name, _)| name.clone())
        .collect();
    let client = Client::new(settings, cache(places), offline)?;
    Ok(match progress::blobs() {
        Some(watch) => client.watched(watch),
        None => client,
    })
}

pub fn cache(places: &Places) -> Cache {
    Cache::at(places.cache.join("content"))
}

/// What an engine shows a registry for one pull.
pub async fn login_for_engine(
    reference: &ImageRef,
) -> Result<Option<engine::image::Login>, Failure> {
    let (registry, repository) = (
        reference.registry().to_owned(),
        reference.repository().to_owned(),
    );
    let found = tokio::task::spawn_blocking(move || {
        let files = login::files(|name| std::env::var(name).ok());
        login::find(&files, &login::Helpers::default(), &registry, &repository)
    })
    .await
    .map_err(|e| Failure::new("registry-login", e.to_string()))?
    .map_err(RegistryError::from)?;
    Ok(found.map(|login| match login {
        login::Login::Password { user, password } => engine::image::Login::Password {
            user,
            password: password.to_string(),
        },
        login::Login::IdentityToken(token) => {
            engine::image::Login::IdentityToken(token.to_string())
        }
    }))
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let diagnostic = Diagnostic::new(error.code(), error.to_string());
        match error.help() {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
        .into()
    }
}

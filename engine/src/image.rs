//! Images as an engine has them: asked for by what was locked, pulled by digest when they are not there, and what an image says
//! about how it wants to be run is read from it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{CreateImageOptionsBuilder, ImportImageOptionsBuilder};
use futures_util::{StreamExt, stream};
use schema::digest::Digest;
use schema::image::ImageRef;

use crate::error::{is_missing, reason};
use crate::request::PinnedImage;
use crate::{Engine, EngineError};

/// An image as the engine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub pinned: PinnedImage,
    /// The image's id, whichever way it is pinned.
    pub id: Digest,
    /// As the engine spells it: `linux`, `amd64`, `v8`.
    pub platform: (String, String, String),
    /// `USER`, empty when there is none.
    pub user: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub working_dir: Option<String>,
    pub stop_signal: Option<String>,
}

/// One step of a pull, for a progress display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    pub layer: String,
    pub status: String,
    /// Bytes done and in all, where the engine says them.
    pub current: Option<u64>,
    pub total: Option<u64>,
}

impl Engine {
    /// The image as the engine has it, or `None`.
    pub async fn image(&self, reference: &ImageRef) -> Result<Option<Image>, EngineError> {
        match self.docker.inspect_image(reference.as_str()).await {
            Ok(inspect) => read(reference, inspect).map(Some),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(EngineError::Api {
                what: "inspect the image",
                reason: reason(&e),
            }),
        }
    }

    /// The image that the engine has under an id, or `None`.
    pub async fn image_by_id(&self, id: &Digest) -> Result<Option<Image>, EngineError> {
        let reference =
            ImageRef::parse(&format!("local@{id}")).map_err(|e| EngineError::Image {
                reference: id.to_string(),
                reason: e.to_string(),
            })?;
        match self.docker.inspect_image(&id.to_string()).await {
            Ok(mut inspect) => {
                inspect.repo_digests = None;
                let image = read(&reference, inspect)?;
                Ok(Some(image).filter(|image| image.id == *id))
            }
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(EngineError::Api {
                what: "inspect the image",
                reason: reason(&e),
            }),
        }
    }

    /// Hands the engine an archive of images, as it comes; `from` breaks off by sending an error.
    pub async fn load(
        &self,
        from: tokio::sync::mpsc::Receiver<std::io::Result<Vec<u8>>>,
    ) -> Result<(), EngineError> {
        let pieces = stream::unfold(from, |mut from| async move {
            let piece = from.recv().await?;
            Some((piece.map(Into::into), from))
        });
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let mut load = std::pin::pin!(self.docker.import_image_stream(options, pieces, None));
        while let Some(step) = load.next().await {
            step.map_err(EngineError::api("load the image"))?;
        }
        Ok(())
    }

    /// The image of a reference with a digest, pulled when the engine does not have it. `progress` hears every step of a pull.
    pub async fn pulled(
        &self,
        reference: &ImageRef,
        login: Option<Login>,
        progress: &mut (dyn FnMut(PullProgress) + Send),
    ) -> Result<Image, EngineError> {
        if let Some(image) = self.image(reference).await? {
            return Ok(image);
        }
        let credentials = login
            .map(|login| login.for_engine(reference.registry()))
            .transpose()?;
        let failed = |reason: String| EngineError::Image {
            reference: reference.as_str().to_owned(),
            reason,
        };
        let options = CreateImageOptionsBuilder::default()
            .from_image(&reference.canonical())
            .build();
        let mut pull = self.docker.create_image(Some(options), None, credentials);
        while let Some(step) = pull.next().await {
            let step = step.map_err(|e| failed(reason(&e)))?;
            if let Some(message) = step.error_detail.and_then(|d| d.message) {
                return Err(failed(message));
            }
            let bytes = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
            progress(PullProgress {
                layer: step.id.unwrap_or_default(),
                status: step.status.unwrap_or_default(),
                current: step.progress_detail.as_ref().and_then(|p| bytes(p.current)),
                total: step.progress_detail.as_ref().and_then(|p| bytes(p.total)),
            });
        }
        self.image(reference)
            .await?
            .ok_or_else(|| failed("the engine pulled it and does not have it".to_owned()))
    }
}

/// What a registry is shown by the engine, for one pull.
#[derive(Clone)]
pub enum Login {
    Password { user: String, password: String },
    IdentityToken(String),
}

// === impl Login ===

impl Login {
    fn for_engine(self, registry: &str) -> Result<DockerCredentials, EngineError> {
        let mut credentials = DockerCredentials {
            serveraddress: Some(match registry {
                "docker.io" => "https://index.docker.io/v1/".to_owned(),
                registry => registry.to_owned(),
            }),
            ..DockerCredentials::default()
        };
        match self {
            Self::Password { user, password } => {
                credentials.username = Some(user);
                credentials.password = Some(password);
            }
            Self::IdentityToken(token) => credentials.identitytoken = Some(token),
        }
        // bollard writes the header in one alphabet of base64, and engines read it in the other; they differ in two digits.
        let sent = serde_json::to_string(&credentials).unwrap_or_default();
        if STANDARD.encode(sent).contains(['+', '/']) {
            return Err(EngineError::LoginSpelling(registry.to_owned()));
        }
        Ok(credentials)
    }
}

fn read(
    reference: &ImageRef,
    inspect: bollard::models::ImageInspect,
) -> Result<Image, EngineError> {
    let failed = |reason: &str| EngineError::Image {
        reference: reference.as_str().to_owned(),
        reason: reason.to_owned(),
    };
    let os = inspect.os.unwrap_or_default();
    if !os.is_empty() && os != "linux" {
        return Err(EngineError::ImagePlatform {
            reference: reference.as_str().to_owned(),
            found: os,
        });
    }
    let id = inspect.id.unwrap_or_default();
    // Podman leaves the algorithm out.
    let id = Digest::parse(&id)
        .or_else(|_| Digest::parse(&format!("sha256:{id}")))
        .map_err(|_| failed("the engine gives it no id"))?;
    let platform = (
        if os.is_empty() {
            "linux".to_owned()
        } else {
            os
        },
        inspect.architecture.unwrap_or_default(),
        inspect.variant.unwrap_or_default(),
    );
    let pinned = pin(reference, id, &inspect.repo_digests.unwrap_or_default());
    if let (Some(asked), Some(_)) = (reference.digest(), &pinned.repository)
        && *asked != pinned.digest
    {
        return Err(failed("the engine has it under another digest"));
    }
    let config = inspect.config.unwrap_or_default();
    Ok(Image {
        pinned,
        id,
        platform,
        user: config.user.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        env: config
            .env
            .unwrap_or_default()
            .into_iter()
            .map(|line| match line.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (line, String::new()),
            })
            .collect(),
        working_dir: config.working_dir.filter(|dir| !dir.is_empty()),
        stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
    })
}

/// The repository's digest where the engine knows one for the reference's own repository, else the image's id.
fn pin(reference: &ImageRef, id: Digest, repo_digests: &[String]) -> PinnedImage {
    let same_repository = |entry: &ImageRef| {
        entry.registry() == reference.registry() && entry.repository() == reference.repository()
    };
    let found = repo_digests
        .iter()
        .filter_map(|entry| ImageRef::parse(entry).ok())
        .filter(same_repository)
        .filter_map(|entry| entry.digest().copied())
        .find(|digest| reference.digest().is_none_or(|asked| asked == digest));
    match found {
        Some(digest) => PinnedImage {
            repository: Some(format!(
                "{}/{}",
                reference.registry(),
                reference.repository()
            )),
            digest,
        },
        None => PinnedImage {
            repository: None,
            digest: id,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bollard::models::{ImageConfig, ImageInspect};

    fn digest(c: char) -> String {
        format!("sha256:{}", c.to_string().repeat(64))
    }

    fn inspect(repo_digests: &[&str]) -> ImageInspect {
        ImageInspect {
            id: Some(digest('1')),
            os: Some("linux".into()),
            repo_digests: Some(repo_digests.iter().map(|&s| s.to_owned()).collect()),
            config: Some(ImageConfig {
                user: Some("node".into()),
                env: Some(vec!["PATH=/bin".into(), "EMPTY=".into(), "A=b=c".into()]),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_tag_is_pinned_to_its_own_repositorys_digest() {
        let reference = ImageRef::parse("debian:12").unwrap();
        let other = format!("mirror.test/debian@{}", digest('b'));
        let own = format!("debian@{}", digest('a'));
        let image = read(&reference, inspect(&[&other, &own])).unwrap();
        assert_eq!(
            image.pinned.to_string(),
            format!("docker.io/library/debian@{}", digest('a'))
        );
        assert_eq!(image.env["A"], "b=c");
        assert_eq!(image.user, "node");
    }

    #[test]
    fn an_image_that_only_the_engine_has_is_pinned_by_its_id() {
        let reference = ImageRef::parse("local/app").unwrap();
        let other = format!("mirror.test/debian@{}", digest('b'));
        for digests in [&[][..], &[other.as_str()][..]] {
            let image = read(&reference, inspect(digests)).unwrap();
            assert!(image.pinned.is_local());
            assert_eq!(image.pinned.to_string(), digest('1'));
        }
    }

    #[test]
    fn what_an_engine_would_read_otherwise_is_not_sent() {
        let spelt = |secret: &str| {
            let login = Login::Password {
                user: "ada".to_owned(),
                password: secret.to_owned(),
            };
            login.for_engine("r.test")
        };
        assert!(spelt("plain-Secret_1.2!").is_ok());
        assert!(matches!(
            spelt("??????"),
            Err(EngineError::LoginSpelling(_))
        ));
    }

    #[test]
    fn an_image_for_another_system_or_without_an_id_is_refused() {
        let reference = ImageRef::parse("app").unwrap();
        let windows = ImageInspect {
            os: Some("windows".into()),
            ..inspect(&[])
        };
        assert!(matches!(
            read(&reference, windows),
            Err(EngineError::ImagePlatform { .. })
        ));
        let nameless = ImageInspect {
            id: None,
            ..inspect(&[])
        };
        assert!(read(&reference, nameless).is_err());
    }
}

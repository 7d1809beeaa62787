//! The supply chain: `lock` of fifty references against one over a registry that is far away, `verify` of one and of fifty against
//! cosign, and what pulling by digest adds to `docker pull`. A registry of Debian's on loopback, and one that is far away and answers
//! as it does.

mod far;
mod place;

use std::time::Duration;

use anyhow::Result;

use super::Effort;
use super::report::{self, Series};
use crate::image;
use place::{Place, elapsed};

/// The round trip of the registry that is far away, in milliseconds.
const ROUND_TRIP: u64 = 40;
/// So many references that one config names.
const MANY: usize = 50;

pub fn run(host: &str, effort: Effort) -> Result<()> {
    image::ensure(host, image::DEMO)?;
    let place = Place::new(host)?;
    place.push_features(MANY - 1)?;
    let far = far::start(place.registry(), Duration::from_millis(ROUND_TRIP))?;
    lock(&place, &far, effort)?;
    verify(&place, effort)?;
    pull(&place, effort)
}

/// With nothing in the cache each time. Once before, so that the registry that is far away knows its answers.
fn lock(place: &Place, far: &str, effort: Effort) -> Result<()> {
    place.config(far, MANY - 1)?;
    place.forget()?;
    elapsed(&mut place.cli(&["lock", "--yes"]))?;
    report::head(
        &format!("`lock` with an empty cache, {ROUND_TRIP} ms from the registry"),
        &["what", "time", "round trips", "to one feature"],
    );
    let (mut image, mut one, mut many) = (Series::default(), Series::default(), Series::default());
    for _ in 0..effort.rounds {
        for (features, series) in [(0, &mut image), (1, &mut one), (MANY - 1, &mut many)] {
            place.config(far, features)?;
            place.forget()?;
            series.push(elapsed(&mut place.cli(&["lock", "--yes"]))?);
        }
    }
    for (name, series) in [
        ("an image".to_owned(), &image),
        ("an image and a feature".to_owned(), &one),
        (format!("an image and {} features", MANY - 1), &many),
    ] {
        report::row(&[
            name,
            report::time(series.median()),
            format!("{:.1}", series.median() / (ROUND_TRIP as f64 * 1e6)),
            series.ratio(&one),
        ]);
    }
    Ok(())
}

/// Signed by a key, over loopback; cosign has no mode in which it asks nobody.
fn verify(place: &Place, effort: Effort) -> Result<()> {
    report::head(
        "`verify` of a signature by a key",
        &["what", "time", "slowest", "to cosign"],
    );
    place.sign(MANY - 1)?;
    let mut series: Vec<(&str, Series)> = [
        "`cosign verify`, one image",
        "`agentcontainer verify`, one image",
        "the same, `--offline`",
        "`agentcontainer verify`, an image and 49 features",
        "the same, `--offline`",
    ]
    .map(|name| (name, Series::default()))
    .into();
    for features in [0, MANY - 1] {
        place.config(place.registry(), features)?;
        place.forget()?;
        elapsed(&mut place.cli(&["lock", "--yes"]))?;
        elapsed(&mut place.verify(&[]))?;
        for _ in 0..effort.rounds.max(5) * 3 {
            if features == 0 {
                series[0].1.push(elapsed(&mut place.cosign_verify())?);
            }
            let at = if features == 0 { 1 } else { 3 };
            series[at].1.push(elapsed(&mut place.verify(&[]))?);
            series[at + 1]
                .1
                .push(elapsed(&mut place.verify(&["--offline"]))?);
        }
    }
    let base = series[0].1.clone();
    for (name, series) in &series {
        report::row(&[
            (*name).to_owned(),
            report::time(series.median()),
            report::time(series.quantile(1.0)),
            series.ratio(&base),
        ]);
    }
    Ok(())
}

/// What `run` takes longer for where the engine has to pull the image, against `docker pull` of it.
fn pull(place: &Place, effort: Effort) -> Result<()> {
    report::head(
        "Having the image, from a registry on loopback",
        &["what", "time", "ratio"],
    );
    place.config(place.registry(), 0)?;
    place.forget()?;
    elapsed(&mut place.cli(&["lock", "--yes"]))?;
    let run = || place.cli(&["run", "--yes", "--", "true"]);
    place.remove_image()?;
    elapsed(&mut run())?;
    let (mut plain, mut ours) = (Series::default(), Series::default());
    for _ in 0..effort.rounds {
        place.remove_image()?;
        plain.push(elapsed(&mut place.docker_pull())?);
        let there = elapsed(&mut run())?;
        place.remove_image()?;
        ours.push(elapsed(&mut run())? - there);
    }
    for (name, series) in [
        ("`docker pull`", &plain),
        (
            "`agentcontainer run` that pulls, less one that does not",
            &ours,
        ),
    ] {
        report::row(&[
            name.to_owned(),
            report::time(series.median()),
            series.ratio(&plain),
        ]);
    }
    Ok(())
}

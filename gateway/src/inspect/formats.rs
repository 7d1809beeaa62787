//! Formats of keys that are publicly known, as data: how each begins, what follows, and the hosts where one belongs, so that a
//! program that uses a key where it is meant to go is left alone. Keys of package registries and of what people host
//! themselves have no such host: the one place for them is a credential. Read by `secrets`.

use schema::host::HostName;

use super::shape::Alphabet::{self, Alnum, Base32, Base64, Dotted, Hex, Upper, Word};
use super::shape::Shape::{self, AtLeast, Between, Exactly, Other};
use super::shape::{
    any, aws_secret, crc32_base62, discord_webhook, not_an_example, pem, slack_webhook,
};

/// What may stand ahead of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing that would make it part of a longer word.
    Boundary,
    Anything,
    /// The rest of the key, so many of these at least.
    Key(Alphabet, usize),
    Digits(usize),
    /// As `Boundary`, but not a name by which a presigned URL says whose it is (AWS Signature Version 4, query parameters).
    Unsigned,
}

/// Formats of which many are published on purpose, or that ordinary names look like: recorded, whatever the level, never refused.
pub const WEAK: [&str; 2] = ["google-api-key", "mailgun-key"];

pub struct Format {
    /// Stable, and all that is said of what was found.
    pub name: &'static str,
    pub prefixes: &'static [&'static str],
    pub shape: Shape,
    pub before: Before,
    /// `name`, or `*.name` for any depth below it.
    pub hosts: &'static [&'static str],
}

const fn format(
    name: &'static str,
    prefixes: &'static [&'static str],
    shape: Shape,
    hosts: &'static [&'static str],
) -> Format {
    Format {
        name,
        prefixes,
        shape,
        before: Before::Boundary,
        hosts,
    }
}

const fn behind(before: Before, format: Format) -> Format {
    Format { before, ..format }
}

const GITHUB: &[&str] = &[
    "github.com",
    "*.github.com",
    "*.githubusercontent.com",
    "*.githubcopilot.com",
    "*.ghe.com",
    "ghcr.io",
];
const AWS: &[&str] = &["*.amazonaws.com", "*.amazonaws.com.cn", "*.api.aws"];
const GOOGLE: &[&str] = &[
    "*.googleapis.com",
    "*.google.com",
    "*.gcr.io",
    "gcr.io",
    "*.pkg.dev",
];
/// Wherever it goes, it does not belong there.
const NOWHERE: &[&str] = &[];

pub static FORMATS: &[Format] = &[
    behind(
        Before::Unsigned,
        format(
            "aws-access-key-id",
            &["AKIA", "ASIA", "ABIA", "ACCA"],
            Exactly(Base32, 16, not_an_example),
            AWS,
        ),
    ),
    behind(
        Before::Anything,
        format(
            "aws-secret-access-key",
            &[
                "aws_secret_access_key",
                "AWS_SECRET_ACCESS_KEY",
                "aws_secret_key",
                "SecretAccessKey",
                "secretAccessKey",
                "secret_access_key",
            ],
            Other(aws_secret),
            AWS,
        ),
    ),
    format(
        "github-token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        Exactly(Alnum, 36, crc32_base62),
        GITHUB,
    ),
    format(
        "github-fine-grained-token",
        &["github_pat_"],
        Exactly(Word, 82, |text| {
            text[22] == b'_' && text.iter().filter(|&&b| b == b'_' || b == b'-').count() == 1
        }),
        GITHUB,
    ),
    format(
        "gitlab-token",
        &[
            "glpat-", "gldt-", "glrt-", "glrtr-", "glcbt-", "glptt-", "glft-", "glimt-",
            "glagent-", "gloas-", "glsoat-", "glffct-",
        ],
        AtLeast(Word, 20),
        &["gitlab.com", "*.gitlab.com"],
    ),
    format(
        "slack-token",
        &[
            "xoxb-",
            "xoxp-",
            "xoxa-",
            "xoxr-",
            "xoxs-",
            "xoxo-",
            "xoxc-",
            "xoxd-",
            "xoxe-",
            "xoxe.xoxp-",
            "xoxe.xoxb-",
            "xapp-",
        ],
        Between(Word, 24, 280, |text| {
            text.iter().filter(|b| b.is_ascii_digit()).count() >= 4
        }),
        &["slack.com", "*.slack.com"],
    ),
    format(
        "slack-webhook",
        &["hooks.slack.com/services/T"],
        Other(slack_webhook),
        &["hooks.slack.com"],
    ),
    format(
        "stripe-key",
        &["sk_live_", "rk_live_", "whsec_"],
        AtLeast(Alnum, 24),
        &["*.stripe.com"],
    ),
    format(
        "anthropic-key",
        &["sk-ant-"],
        AtLeast(Word, 40),
        &[
            "*.anthropic.com",
            "claude.ai",
            "*.claude.ai",
            "claude.com",
            "*.claude.com",
        ],
    ),
    format(
        "openai-key",
        &["sk-", "sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-"],
        Between(Word, 40, 200, |text| {
            text.windows(8).any(|part| part == b"T3BlbkFJ")
        }),
        &["*.openai.com", "chatgpt.com", "*.chatgpt.com"],
    ),
    format(
        "openrouter-key",
        &["sk-or-v1-"],
        Exactly(Hex, 64, any),
        &["openrouter.ai"],
    ),
    format("google-api-key", &["AIza"], Exactly(Word, 35, any), GOOGLE),
    format(
        "google-oauth-secret",
        &["GOCSPX-"],
        Exactly(Word, 28, any),
        GOOGLE,
    ),
    format("google-oauth-token", &["ya29."], AtLeast(Word, 60), GOOGLE),
    format(
        "npm-token",
        &["npm_"],
        Exactly(Alnum, 36, crc32_base62),
        NOWHERE,
    ),
    format("pypi-token", &["pypi-AgE"], AtLeast(Word, 80), NOWHERE),
    format(
        "crates-token",
        &["cio"],
        Exactly(Alnum, 32, |text| {
            text.iter().any(u8::is_ascii_digit)
                && text.iter().any(u8::is_ascii_uppercase)
                && text.iter().any(u8::is_ascii_lowercase)
        }),
        NOWHERE,
    ),
    format(
        "rubygems-key",
        &["rubygems_"],
        Exactly(Hex, 48, any),
        NOWHERE,
    ),
    format(
        "huggingface-token",
        &["hf_", "api_org_"],
        Exactly(Alnum, 34, any),
        &["huggingface.co", "*.huggingface.co", "*.hf.co"],
    ),
    format(
        "sendgrid-key",
        &["SG."],
        Exactly(Dotted, 66, |text| {
            text[22] == b'.' && text.iter().filter(|&&b| b == b'.').count() == 1
        }),
        &["*.sendgrid.com"],
    ),
    format(
        "twilio-key",
        &["SK"],
        Exactly(Hex, 32, any),
        &["*.twilio.com"],
    ),
    format(
        "mailgun-key",
        &["key-"],
        Exactly(Hex, 32, any),
        &["*.mailgun.net"],
    ),
    format(
        "digitalocean-token",
        &["dop_v1_", "doo_v1_", "dor_v1_"],
        Exactly(Hex, 64, any),
        &["*.digitalocean.com", "*.digitaloceanspaces.com"],
    ),
    format(
        "azure-storage-key",
        &["AccountKey="],
        Exactly(Base64, 88, |text| text.ends_with(b"==")),
        &["*.core.windows.net"],
    ),
    behind(
        Before::Key(Dotted, 3),
        format(
            "entra-client-secret",
            &["8Q~"],
            Between(Dotted, 31, 34, any),
            &["login.microsoftonline.com"],
        ),
    ),
    format("private-key", &["-----BEGIN"], Other(pem), NOWHERE),
    format(
        "age-key",
        &["AGE-SECRET-KEY-1"],
        Exactly(Upper, 58, |text| !text.iter().any(|b| b"1BIO".contains(b))),
        NOWHERE,
    ),
    format(
        "vault-token",
        &["hvs.", "hvb.", "hvr."],
        AtLeast(Word, 24),
        NOWHERE,
    ),
    format(
        "doppler-token",
        &[
            "dp.pt.",
            "dp.st.",
            "dp.ct.",
            "dp.sa.",
            "dp.scim.",
            "dp.audit.",
        ],
        Between(Dotted, 40, 80, any),
        &["*.doppler.com"],
    ),
    format(
        "databricks-token",
        &["dapi"],
        Exactly(Hex, 32, any),
        &["*.databricks.com", "*.azuredatabricks.net"],
    ),
    format(
        "linear-key",
        &["lin_api_", "lin_oauth_"],
        Between(Alnum, 40, 64, any),
        &["*.linear.app"],
    ),
    format(
        "notion-token",
        &["ntn_", "secret_"],
        Between(Alnum, 43, 50, |text| {
            text.iter().any(u8::is_ascii_digit) && text.iter().any(u8::is_ascii_uppercase)
        }),
        &["*.notion.com"],
    ),
    behind(
        Before::Digits(8),
        format(
            "telegram-token",
            &[":AA"],
            Exactly(Word, 33, any),
            &["api.telegram.org"],
        ),
    ),
    format(
        "discord-webhook",
        &["discord.com/api/webhooks/", "discordapp.com/api/webhooks/"],
        Other(discord_webhook),
        &["discord.com", "*.discord.com"],
    ),
    format(
        "shopify-token",
        &["shpat_", "shpca_", "shppa_", "shpss_"],
        Exactly(Hex, 32, any),
        &["*.myshopify.com", "*.shopify.com"],
    ),
    format(
        "square-token",
        &["sq0atp-", "sq0csp-"],
        Between(Word, 22, 43, any),
        &["*.squareup.com"],
    ),
    format(
        "planetscale-token",
        &["pscale_tkn_", "pscale_pw_", "pscale_oauth_"],
        AtLeast(Dotted, 32),
        &["*.planetscale.com", "*.psdb.cloud"],
    ),
    format(
        "atlassian-token",
        &["ATATT3xFfGF0", "ATCTT3xFfGF0"],
        AtLeast(Word, 100),
        &[
            "*.atlassian.net",
            "*.atlassian.com",
            "bitbucket.org",
            "*.bitbucket.org",
        ],
    ),
    format(
        "docker-hub-token",
        &["dckr_pat_", "dckr_oat_"],
        Between(Word, 27, 32, any),
        &["*.docker.com", "*.docker.io"],
    ),
    format(
        "groq-key",
        &["gsk_"],
        Exactly(Alnum, 52, any),
        &["api.groq.com"],
    ),
    format("xai-key", &["xai-"], Exactly(Alnum, 80, any), &["*.x.ai"]),
    format(
        "perplexity-key",
        &["pplx-"],
        Exactly(Alnum, 48, any),
        &["*.perplexity.ai"],
    ),
    format(
        "replicate-token",
        &["r8_"],
        Exactly(Alnum, 37, any),
        &["*.replicate.com"],
    ),
    format(
        "grafana-token",
        &["glsa_"],
        Exactly(Word, 41, |text| text[32] == b'_'),
        &["grafana.com", "*.grafana.com", "*.grafana.net"],
    ),
    format(
        "sentry-token",
        &["sntrys_", "sntryu_"],
        AtLeast(Base64, 64),
        &["sentry.io", "*.sentry.io"],
    ),
    format(
        "new-relic-key",
        &["NRAK-"],
        Exactly(Upper, 27, any),
        &["*.newrelic.com"],
    ),
    format(
        "figma-token",
        &["figd_"],
        AtLeast(Word, 40),
        &["*.figma.com"],
    ),
    format(
        "pulumi-token",
        &["pul-"],
        Exactly(Hex, 40, any),
        &["*.pulumi.com"],
    ),
    behind(
        Before::Key(Alnum, 14),
        format(
            "terraform-token",
            &[".atlasv1."],
            AtLeast(Word, 60),
            &["app.terraform.io"],
        ),
    ),
    format(
        "supabase-key",
        &["sbp_", "sb_secret_"],
        Between(Word, 30, 48, |text| text.iter().any(u8::is_ascii_digit)),
        &["*.supabase.com", "*.supabase.co"],
    ),
    format(
        "postman-key",
        &["PMAK-"],
        Exactly(Word, 59, |text| text[24] == b'-'),
        &["*.getpostman.com", "*.postman.com"],
    ),
    format(
        "buildkite-token",
        &["bkua_"],
        Exactly(Hex, 40, any),
        &["*.buildkite.com"],
    ),
    format(
        "circleci-token",
        &["CCIPAT_"],
        Exactly(Word, 63, |text| text[22] == b'_'),
        &["circleci.com"],
    ),
    format(
        "tailscale-key",
        &["tskey-auth-", "tskey-api-", "tskey-client-", "tskey-scim-"],
        AtLeast(Word, 24),
        &["*.tailscale.com"],
    ),
    format(
        "fly-token",
        &["fm1_", "fm1r_", "fm2_"],
        AtLeast(Base64, 100),
        &["*.fly.io", "*.machines.dev"],
    ),
    format(
        "heroku-key",
        &["HRKU-AA"],
        Exactly(Word, 58, any),
        &["*.heroku.com"],
    ),
    format(
        "brevo-key",
        &["xkeysib-"],
        Exactly(Word, 81, |text| text[64] == b'-'),
        &["*.brevo.com", "*.sendinblue.com"],
    ),
    format(
        "mapbox-secret-token",
        &["sk.eyJ"],
        Between(Dotted, 60, 280, |text| text.contains(&b'.')),
        &["*.mapbox.com"],
    ),
    format(
        "netlify-token",
        &["nfp_"],
        Exactly(Alnum, 36, any),
        &["*.netlify.com"],
    ),
    format(
        "langsmith-key",
        &["lsv2_pt_", "lsv2_sk_"],
        Exactly(Word, 43, |text| text[32] == b'_'),
        &["*.langchain.com"],
    ),
    format(
        "1password-service-token",
        &["ops_eyJ"],
        AtLeast(Base64, 200),
        &["*.1password.com", "*.1password.eu", "*.1password.ca"],
    ),
];

// === impl Format ===

impl Format {
    /// Whether one may go to that host.
    pub fn belongs(&self, host: &HostName) -> bool {
        let host = host.as_str();
        self.hosts
            .iter()
            .any(|known| match known.strip_prefix("*.") {
                Some(base) => host
                    .strip_suffix(base)
                    .is_some_and(|rest| rest.ends_with('.')),
                None => host == *known,
            })
    }
}

#[cfg(test)]
pub mod samples;

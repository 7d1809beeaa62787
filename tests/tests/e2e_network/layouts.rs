//! Where other distributions' images keep what they trust: their files at their places on the test image's root, and real clients,
//! with nothing in their environment, that are told those places or have them compiled in.

use agentcontainer_tests::place::token;
use agentcontainer_tests::{docker, rig};
use serde_json::json;

use crate::standard::{name, standard, workspace};

/// Debian's files put aside: what the image's own programs trust, for the other places and for the controls.
const ASIDE: &str = "
cp /etc/ssl/certs/ca-certificates.crt /own.pem
mkdir /own.d && cp -L /etc/ssl/certs/*.0 /own.d
cp -L /etc/ssl/certs/java/cacerts /own.jks
rm -rf /etc/ssl/certs /etc/ssl/cert.pem /usr/lib/ssl/certs /usr/lib/ssl/cert.pem
";

/// How this image's OpenSSL has the distribution's two places compiled in.
fn compiled_in(file: &str, directory: &str) -> String {
    format!("ln -s {file} /usr/lib/ssl/cert.pem; ln -s {directory} /usr/lib/ssl/certs\n")
}

/// Clients, each told one place, and what came of it: `curl /path yes`. What is told `-no-…` has that place alone.
const CLIENTS: &str = r#"
say() { what=$1; shift; if "$@" >/tmp/said 2>&1 </dev/null; then echo "$what yes"; else echo "$what no"; cat /tmp/said >&2; fi; }
by_curl() { env -i /usr/bin/curl -sS --max-time 30 --cacert "$1" --capath /nowhere -o /dev/null https://$HOST/hello; }
by_tls() { timeout 30 env -i /usr/bin/openssl s_client -verify_return_error -no-CAstore -servername $HOST -connect $HOST:443 "$@"; }
by_python() { env -i /usr/bin/python3 -c "import urllib.request as u; u.urlopen('https://$HOST/hello', timeout=30).read()"; }
by_keytool() { env -i /usr/bin/keytool -list -keystore "$1" -storepass changeit -alias agentcontainer-session; }
for file in $FILES /own.pem; do say "curl $file" by_curl $file; say "openssl $file" by_tls -CAfile $file -no-CApath; done
for directory in $DIRECTORIES /own.d; do say "openssl $directory" by_tls -CApath $directory -no-CAfile; done
for store in $STORES /own.jks; do say "keytool $store" by_keytool $store; done
say openssl by_tls
say python by_python
"#;

/// What a distribution has, by the paths that its programs know.
struct Layout {
    files: &'static [&'static str],
    directories: &'static [&'static str],
    stores: &'static [&'static str],
}

/// An image of the test's own; gone with this value.
struct Image(String);

impl Image {
    fn made_by(script: &str) -> Self {
        let name = token("layout");
        let image = Self(format!("{name}:latest"));
        let words = ["run", "--name", &name, "--network", "none", "--user", "0"];
        let made = docker::attempt(&[&words, &[&*rig().image, "sh", "-ec", script][..]].concat());
        let kept = made.status == 0;
        if kept {
            docker::run(&["commit", "--change", "CMD [\"/bin/bash\"]", &name, &image.0]);
        }
        docker::attempt(&["rm", "--force", &name]);
        assert!(kept, "{}", made.stderr);
        image
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        docker::attempt(&["image", "rm", "--force", &self.0]);
    }
}

/// Every client verifies the gateway by each of the places, and none by what was put aside.
fn is_trusted_at_each(image: &str, layout: &Layout) {
    let host = name();
    let script = format!(
        "HOST={host} FILES='{}' DIRECTORIES='{}' STORES='{}'\n{CLIENTS}",
        layout.files.join(" "),
        layout.directories.join(" "),
        layout.stores.join(" ")
    );
    let workspace = workspace().allow(&[&host]).key("image", json!(image));
    let out = workspace.inside(&script);
    let files = layout.files.iter().flat_map(|file| {
        let by = |client: &str| format!("{client} {file} yes");
        [by("curl"), by("openssl")]
    });
    let controls = ["curl /own.pem no", "openssl /own.pem no"].map(str::to_owned);
    let mut expected: Vec<String> = files.chain(controls).collect();
    let told = |client: &str, places: &[&str], own: &str| -> Vec<String> {
        let each = places.iter().map(|place| format!("{client} {place} yes"));
        each.chain([format!("{client} {own} no")]).collect()
    };
    expected.extend(told("openssl", layout.directories, "/own.d"));
    expected.extend(told("keytool", layout.stores, "/own.jks"));
    expected.extend(["openssl yes", "python yes"].map(str::to_owned));
    let said: Vec<&str> = out.ok().lines().collect();
    assert_eq!(said, expected, "{}", out.stderr);
    assert_eq!(standard().requests(&host).len(), layout.files.len() + 1);
}

#[test]
fn debians_and_ubuntus_places() {
    // Nothing is put elsewhere: copies for the controls alone.
    let aside = ASIDE.lines().filter(|line| !line.starts_with("rm "));
    let image = Image::made_by(&aside.collect::<Vec<_>>().join("\n"));
    is_trusted_at_each(
        &image.0,
        &Layout {
            files: &["/etc/ssl/certs/ca-certificates.crt"],
            directories: &["/etc/ssl/certs", "/usr/lib/ssl/certs"],
            stores: &["/etc/ssl/certs/java/cacerts"],
        },
    );
}

#[test]
fn alpines_places() {
    let image = Image::made_by(&format!(
        "{ASIDE}
         mkdir -p /etc/ssl/certs/java && cp /own.pem /etc/ssl/certs/ca-certificates.crt && cp /own.d/* /etc/ssl/certs
         ln -s certs/ca-certificates.crt /etc/ssl/cert.pem && cp /own.jks /etc/ssl/certs/java/cacerts
         {}",
        compiled_in("/etc/ssl/cert.pem", "/etc/ssl/certs")
    ));
    is_trusted_at_each(
        &image.0,
        &Layout {
            files: &["/etc/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt"],
            directories: &["/etc/ssl/certs"],
            stores: &["/etc/ssl/certs/java/cacerts"],
        },
    );
}

#[test]
fn fedoras_places() {
    let image = Image::made_by(&format!(
        "{ASIDE}
         extracted=/etc/pki/ca-trust/extracted
         mkdir -p $extracted/pem $extracted/java /etc/pki/tls/certs /etc/pki/java
         cp /own.pem $extracted/pem/tls-ca-bundle.pem && cp /own.jks $extracted/java/cacerts
         ln -s $extracted/pem/tls-ca-bundle.pem /etc/pki/tls/certs/ca-bundle.crt
         ln -s $extracted/pem/tls-ca-bundle.pem /etc/pki/tls/cert.pem
         ln -s ../ca-trust/extracted/java/cacerts /etc/pki/java/cacerts
         ln -s ../pki/tls/certs /etc/ssl/certs
         {}",
        compiled_in("/etc/pki/tls/cert.pem", "/etc/pki/tls/certs")
    ));
    is_trusted_at_each(
        &image.0,
        &Layout {
            files: &[
                "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
                "/etc/pki/tls/certs/ca-bundle.crt",
                "/etc/pki/tls/cert.pem",
                "/etc/ssl/certs/ca-bundle.crt",
            ],
            directories: &["/etc/pki/tls/certs", "/etc/ssl/certs"],
            stores: &["/etc/pki/java/cacerts"],
        },
    );
}

#[test]
fn opensuses_places() {
    let image = Image::made_by(&format!(
        "{ASIDE}
         all=/var/lib/ca-certificates
         mkdir -p $all && cp -r /own.d $all/pem && cp /own.pem $all/ca-bundle.pem && cp /own.jks $all/java-cacerts
         ln -s ../../var/lib/ca-certificates/pem /etc/ssl/certs
         ln -s ../../var/lib/ca-certificates/ca-bundle.pem /etc/ssl/ca-bundle.pem
         {}",
        compiled_in("/nowhere", "/etc/ssl/certs")
    ));
    is_trusted_at_each(
        &image.0,
        &Layout {
            files: &[
                "/etc/ssl/ca-bundle.pem",
                "/var/lib/ca-certificates/ca-bundle.pem",
            ],
            directories: &["/etc/ssl/certs", "/var/lib/ca-certificates/pem"],
            stores: &["/var/lib/ca-certificates/java-cacerts"],
        },
    );
}

#[test]
fn what_an_image_has_in_a_directory_of_hashed_names_stays_as_it_is() {
    let host = name();
    // Under the name that is looked for, a link of the image's own: left, and nothing goes where it leads.
    let image = Image::made_by(
        "ln -s /etc/hostname.own /etc/ssl/certs/06a0de29.0; echo own >/etc/hostname.own",
    );
    let listed = "ls -l /etc/ssl/certs | grep -v ca-certificates.crt | grep -v java | tail -n +2 | awk '{print $5, $9, $11}' | sort";
    let of = |image: &str, script: &str| {
        let workspace = workspace().allow(&[&host]).key("image", json!(image));
        workspace.inside(script).ok().to_owned()
    };
    let own = docker::run(&[
        "run",
        "--rm",
        "--network",
        "none",
        &image.0,
        "sh",
        "-c",
        listed,
    ]);
    assert_eq!(
        of(&image.0, &format!("{listed}; cat /etc/hostname.own")),
        format!("{own}\nown")
    );
    // The control: without the link there is one more file than the image has, the session's certificate.
    let script = format!(
        "{listed}; cmp /etc/ssl/certs/06a0de29.0 /run/agentcontainer/trust/ca.pem && echo same"
    );
    let more = of(&rig().image, &script);
    let more: Vec<&str> = more.lines().filter(|line| !own.contains(line)).collect();
    assert!(
        matches!(more[..], [file, "same"] if file.contains("06a0de29.0")),
        "{more:?}"
    );
}

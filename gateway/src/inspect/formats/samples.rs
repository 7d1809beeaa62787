//! Keys that are none, of every format and prefix: made up anew for each test, so that none stands in the source.

use super::super::shape::{Alphabet, Shape, Verdict, sealed};
use super::{Before, FORMATS, Format};

/// Characters that look drawn by chance, the same ones each time.
pub struct Random(pub u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn of(&mut self, alphabet: Alphabet, length: usize) -> String {
        let plain = |b: &u8| b.is_ascii_alphanumeric() && alphabet.has(*b);
        let letters: Vec<u8> = (0..=255).filter(plain).collect();
        let one = |random: &mut Self| char::from(letters[random.draw() as usize % letters.len()]);
        (0..length).map(|_| one(self)).collect()
    }
}

/// A key: what stands ahead of it, its public prefix, the rest.
pub struct Sample {
    pub format: &'static Format,
    pub ahead: String,
    pub prefix: &'static str,
    pub rest: String,
}

impl Sample {
    pub fn text(&self) -> String {
        format!("{}{}{}", self.ahead, self.prefix, self.rest)
    }
}

/// One of each.
pub fn all() -> Vec<Sample> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    FORMATS
        .iter()
        .flat_map(|format| format.prefixes.iter().map(move |prefix| (format, *prefix)))
        .map(|(format, prefix)| Sample {
            format,
            ahead: match format.before {
                Before::Boundary | Before::Unsigned | Before::Anything => String::new(),
                Before::Key(alphabet, least) => random.of(alphabet, least),
                Before::Digits(least) => "73519284061".chars().take(least).collect(),
            },
            prefix,
            rest: rest(format, &mut random),
        })
        .collect()
}

fn rest(format: &Format, random: &mut Random) -> String {
    use Alphabet::{Alnum, Base64, Hex, Upper, Word};
    for _ in 0..1000 {
        let mut of = |alphabet, length| random.of(alphabet, length);
        let text = match (format.name, format.shape) {
            ("github-token" | "npm-token", _) => sealed(&of(Alnum, 30)),
            ("github-fine-grained-token", _) => format!("{}_{}", of(Alnum, 22), of(Alnum, 59)),
            ("sendgrid-key", _) => format!("{}.{}", of(Word, 22), of(Word, 43)),
            ("azure-storage-key", _) => format!("{}==", of(Alnum, 86)),
            ("openai-key", _) => format!("{}T3BlbkFJ{}", of(Alnum, 20), of(Alnum, 20)),
            ("grafana-token", _) => format!("{}_{}", of(Alnum, 32), of(Hex, 8)),
            ("circleci-token", _) => format!("{}_{}", of(Alnum, 22), of(Hex, 40)),
            ("brevo-key", _) => format!("{}-{}", of(Hex, 64), of(Alnum, 16)),
            ("langsmith-key", _) => format!("{}_{}", of(Hex, 32), of(Hex, 10)),
            ("postman-key", _) => format!("{}-{}", of(Hex, 24), of(Hex, 34)),
            ("mapbox-secret-token", _) => format!("{}.{}", of(Base64, 60), of(Word, 22)),
            ("slack-token", _) => format!("73519284061-{}", of(Alnum, 30)),
            ("slack-webhook", _) => {
                format!("{}/{}/{}", of(Upper, 8), of(Upper, 9), of(Alnum, 24))
            }
            ("discord-webhook", _) => format!("735192840617351928/{}", of(Word, 68)),
            ("aws-secret-access-key", _) => format!("\": \"{}", of(Base64, 40)),
            ("private-key", _) => {
                format!(" RSA PRIVATE KEY-----\n{}\n", of(Base64, 64))
            }
            (_, Shape::Exactly(alphabet, length, _)) => of(alphabet, length),
            (_, Shape::Between(alphabet, least, _, _)) => of(alphabet, least + 2),
            (_, Shape::AtLeast(alphabet, least)) => of(alphabet, least + 3),
            (name, Shape::Other(_)) => panic!("no sample of {name}"),
        };
        if matches!(format.shape.judge(text.as_bytes(), false), Verdict::Yes(_)) {
            return text;
        }
    }
    panic!("no sample of {} is one", format.name)
}

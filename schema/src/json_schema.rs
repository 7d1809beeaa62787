//! The JSON Schemas that editors complete and check by, generated from the types and from the table of refused keys.
//! They are checked in under `schema/json/`; a test regenerates and compares (`UPDATE=1 cargo test -p schema` writes).
//! Whatever the parser accepts they accept; the parser is stricter about what a string says.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::config::keys::{Accepted, Key, Parent, REFUSED, Why};
use crate::hostconfig::HostConfig;
use crate::lockfile::{self, Lockfile};
use crate::organisation::Organisation;
use crate::provider::PROVIDERS;

/// Of `agentcontainer.json`.
pub fn agentcontainer() -> Value {
    let mut schema = generate::<Config>("agentcontainer.json");
    schema["allowTrailingCommas"] = json!(true);
    insert(
        &mut schema,
        Parent::Root,
        "$schema",
        json!({ "type": "string" }),
    );
    let customizations = json!({
        "description": "Other tools' settings. In this file agentcontainer's own are the key `agent`.",
        "type": "object",
        "properties": { "agentcontainer": false }
    });
    insert(&mut schema, Parent::Root, "customizations", customizations);
    for key in REFUSED {
        insert(&mut schema, key.parent, key.name, refused(key));
    }
    schema
}

/// Of the host's `config.toml`, for editors that check TOML by JSON Schema.
pub fn config() -> Value {
    let mut schema = generate::<HostConfig>("config.toml");
    let known: Vec<&str> = PROVIDERS.iter().map(|provider| provider.name).collect();
    let others = format!("^(?!({})$)[A-Za-z0-9_-]{{1,64}}$", known.join("|"));
    schema["properties"]["credentials"]["patternProperties"][others] =
        json!({ "required": ["hosts"] });
    schema
}

/// Of `agentcontainer-lock.json`.
pub fn lockfile() -> Value {
    generate::<Lockfile>(lockfile::FILE)
}

/// Of an organisation's policy.
pub fn organisation() -> Value {
    let mut schema = generate::<Organisation>("organisation-policy.json");
    schema["allowTrailingCommas"] = json!(true);
    schema["properties"]["$schema"] = json!({ "type": "string" });
    schema
}

/// As the files hold it.
pub fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}

fn generate<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    schema["title"] = json!(title);
    absent_is_not_null(&mut schema);
    schema
}

/// A key that may be absent is generated as one that may be null, which the parser does not take for the same.
fn absent_is_not_null(schema: &mut Value) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut() {
            let null = |schema: &Value| schema["type"] == "null" || schema == "null";
            if let Some(Value::Array(types)) = property.get_mut("type") {
                types.retain(|schema| !null(schema));
                if let [only] = types.as_slice() {
                    property["type"] = only.clone();
                }
            }
            if let Some(Value::Array(schemas)) = property.get_mut("anyOf") {
                schemas.retain(|schema| !null(schema));
            }
        }
    }
    match schema {
        Value::Object(members) => members.values_mut().for_each(absent_is_not_null),
        Value::Array(elements) => elements.iter_mut().for_each(absent_is_not_null),
        _ => {}
    }
}

fn refused(key: &Key) -> Value {
    let mut schema = match key.accepted {
        Accepted::Nothing => json!({ "not": {} }),
        Accepted::EmptyArray => json!({ "type": "array", "maxItems": 0 }),
        Accepted::EmptyObject => json!({ "type": "object", "maxProperties": 0 }),
        Accepted::Bool(value) => json!({ "const": value }),
        Accepted::Words(words) => json!({ "enum": words }),
    };
    let words = match key.why {
        Why::NotEnforced => format!("Not enforced by this version: {}.", key.words),
        Why::Unsafe => format!("Refused: {}.", key.words),
    };
    schema["description"] = json!(words);
    schema
}

fn insert(schema: &mut Value, parent: Parent, key: &str, value: Value) {
    let object = match parent {
        Parent::Root => Some(schema),
        Parent::HostRequirements => schema.pointer_mut("/$defs/HostRequirements"),
        Parent::Network => schema.pointer_mut("/$defs/Network"),
        Parent::Rule => schema.pointer_mut("/$defs/Rule"),
    };
    if let Some(Value::Object(object)) = object {
        let properties = object
            .entry("properties")
            .or_insert_with(|| Value::Object(Map::new()));
        properties[key] = value;
    }
}

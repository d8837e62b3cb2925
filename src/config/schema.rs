//! A node type's JSON Schema, asked what the file may say at each place.
//!
//! Only what schemars makes of plain structs, enums and maps is understood; what is not understood is
//! left to serde, so a gap here costs a good message and never lets a wrong file through.

use crate::NodeType;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

/// The most `$ref`s and choices followed at one place.
const MAX_STEPS: usize = 64;

/// A type's schema with its definitions.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    root: Value,
    defs: Map<String, Value>,
}

impl Shape {
    /// Of a node type.
    pub(crate) fn of(node: &NodeType) -> Self {
        let mut generator = SchemaGenerator::default();
        let root = (node.schema)(&mut generator).to_value();
        Self { root, defs: generator.take_definitions(true) }
    }

    /// Of a settings struct.
    pub(crate) fn of_type<T: JsonSchema>() -> Self {
        let mut generator = SchemaGenerator::default();
        let root = generator.subschema_for::<T>().to_value();
        Self { root, defs: generator.take_definitions(true) }
    }

    /// Of a schema and the definitions it refers to.
    pub(crate) fn with(root: Value, defs: Map<String, Value>) -> Self {
        Self { root, defs }
    }

    /// The schema of the whole.
    pub(crate) fn root(&self) -> &Value {
        &self.root
    }

    /// Every object that a value may satisfy one of: references followed, choices spread out.
    pub(crate) fn options<'s>(&'s self, schemas: &[&'s Value]) -> Vec<&'s Map<String, Value>> {
        let mut open: Vec<&Value> = schemas.iter().rev().copied().collect();
        let mut found = Vec::new();
        for _ in 0..MAX_STEPS {
            let Some(schema) = open.pop().and_then(Value::as_object) else {
                if open.is_empty() {
                    break;
                }
                continue;
            };
            found.push(schema);
            for word in ["anyOf", "oneOf", "allOf"] {
                open.extend(schema.get(word).and_then(Value::as_array).into_iter().flatten().rev());
            }
            if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
                open.extend(self.defs.get(name));
            }
        }
        found
    }

    /// The schemas of a key, or `None` when no option has it and all of them are closed.
    pub(crate) fn key<'s>(options: &[&'s Map<String, Value>], key: &str) -> Option<Vec<&'s Value>> {
        let mut found = Vec::new();
        let mut open = true;
        for option in options {
            let properties = option.get("properties").and_then(Value::as_object);
            let additional = option.get("additionalProperties");
            if let Some(schema) = properties.and_then(|p| p.get(key)) {
                found.push(schema);
            } else if let Some(patterns) = option.get("patternProperties").and_then(Value::as_object) {
                // A map whose keys have a form, which the key's own type checks.
                found.extend(patterns.values());
            } else if let Some(schema) = additional.filter(|a| a.is_object()) {
                found.push(schema);
            } else if properties.is_some() || additional == Some(&Value::Bool(false)) {
                open = false;
            }
        }
        (!found.is_empty() || open).then_some(found)
    }

    /// The schemas of a list's items.
    pub(crate) fn items<'s>(options: &[&'s Map<String, Value>]) -> Vec<&'s Value> {
        options.iter().filter_map(|o| o.get("items")).collect()
    }

    /// The names of an object's keys.
    pub(crate) fn names<'s>(options: &[&'s Map<String, Value>]) -> Vec<&'s str> {
        let mut names: Vec<&str> =
            options.iter().filter_map(|o| o.get("properties")?.as_object()).flat_map(Map::keys).map(String::as_str).collect();
        names.dedup();
        names
    }

    /// The keys that must be there, when there is only one kind of object to be.
    pub(crate) fn required<'s>(options: &[&'s Map<String, Value>]) -> Vec<&'s str> {
        let mut objects = options.iter().filter(|o| o.contains_key("properties"));
        match (objects.next(), objects.next()) {
            (Some(only), None) => only.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether the value is a secret.
    pub(crate) fn is_secret(options: &[&Map<String, Value>]) -> bool {
        options.iter().any(|o| o.get("secret") == Some(&Value::Bool(true)))
    }

    /// Whether a value of this JSON type may stand there. Everything may where nothing is said.
    pub(crate) fn allows(options: &[&Map<String, Value>], ty: &str) -> bool {
        let mut said = false;
        for option in options {
            let word = |v: &Value| v.as_str().is_some_and(|w| w == ty || (w == "number" && ty == "integer"));
            if let Some(types) = option.get("type") {
                said = true;
                if word(types) || types.as_array().is_some_and(|t| t.iter().any(word)) {
                    return true;
                }
            }
            if option.contains_key("const") || option.contains_key("enum") {
                said = true;
                if ty == "string" {
                    return true;
                }
            }
        }
        !said
    }

    /// The words of an enum.
    pub(crate) fn words<'s>(options: &[&'s Map<String, Value>]) -> Vec<&'s str> {
        let consts = options.iter().filter_map(|o| o.get("const")?.as_str());
        let enums = options.iter().filter_map(|o| o.get("enum")?.as_array()).flatten().filter_map(Value::as_str);
        consts.chain(enums).collect()
    }

    /// What texts of this form look like, such as "A duration such as 5s": said by types that are text.
    pub(crate) fn form<'s>(options: &[&'s Map<String, Value>]) -> Option<&'s str> {
        options.iter().find(|o| o.contains_key("pattern"))?.get("description")?.as_str()
    }

    /// The options at a place within the value, map keys and list indices alike.
    pub(crate) fn at(&self, path: &[String]) -> Vec<&Map<String, Value>> {
        let mut options = self.options(&[&self.root]);
        for step in path {
            let mut inner = Self::key(&options, step).unwrap_or_default();
            if inner.is_empty() {
                inner = Self::items(&options);
            }
            options = self.options(&inner);
        }
        options
    }
}

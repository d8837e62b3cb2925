//! The JSON Schema of a whole pipeline file, made of the schemas of every registered node type: completion
//! and checks in an editor, private operators included.

use crate::config::{AlertSettings, EngineSettings, NotifierSettings, ServerSettings, Shape, StateSettings};
use crate::{Kind, NodeType, Registry};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

/// What names look like.
const NAME: &str = "^[a-z][a-z0-9_]*$";
/// What a placeholder looks like.
const PLACEHOLDER: &str = "\\$\\{";

/// The schema.
pub(super) fn schema(registry: &Registry) -> Value {
    // One generator for all: it gives types of the same name names of their own.
    let mut generator = SchemaGenerator::default();
    let engine = generator.subschema_for::<EngineSettings>();
    let state = generator.subschema_for::<StateSettings>();
    let server = generator.subschema_for::<ServerSettings>();
    let alert = generator.subschema_for::<AlertSettings>();
    let notifier = generator.subschema_for::<NotifierSettings>();
    let nodes: Vec<(&NodeType, Value)> = registry.types().map(|node| (node, (node.schema)(&mut generator).to_value())).collect();
    let mut defs = generator.take_definitions(true);
    let all = defs.clone();

    let mut defaults = Map::new();
    let mut sections = Vec::new();
    for kind in [Kind::Source, Kind::Operator, Kind::Sink] {
        let mut fields = Map::new();
        let mut choices = Vec::new();
        for (node, root) in nodes.iter().filter(|(n, _)| n.kind == kind) {
            let shape = Shape::with(root.clone(), all.clone());
            let options = shape.options(&[shape.root()]);
            let mut own = options.iter().find(|o| o.contains_key("properties")).map_or_else(Map::new, |o| (*o).clone());
            for (key, field) in own.get("properties").and_then(Value::as_object).into_iter().flatten() {
                fields.entry(key.clone()).or_insert_with(|| field.clone());
            }
            open(&mut own, node);
            if let Some(name) = root.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
                defs.shift_remove(name);
            }
            let name = format!("{}.{}", kind.section(), node.name);
            choices.push(json!({ "$ref": format!("#/$defs/{name}") }));
            defs.insert(name, Value::Object(own));
        }
        let about = format!("Defaults of {}: laid under each, as far as it has such settings.", kind.section());
        let default = json!({ "type": "object", "description": about, "properties": fields, "additionalProperties": false });
        defaults.insert(kind.section().into(), default);
        sections.push((kind.section(), named(if choices.is_empty() { json!(true) } else { json!({ "oneOf": choices }) })));
    }

    let mut properties = Map::new();
    for (key, value) in [
        ("version", json!({ "const": 1, "description": "The version of the format." })),
        ("name", json!({ "type": "string", "pattern": "^[a-z][a-z0-9_-]*$", "description": "The pipeline's name. Default: the file's." })),
        ("engine", engine.to_value()),
        ("state", state.to_value()),
        ("server", json!({ "anyOf": [{ "const": "none" }, server] })),
        ("defaults", json!({ "type": "object", "properties": defaults, "additionalProperties": false })),
    ]
    .into_iter()
    .chain(sections)
    .chain([("alerts", named(alert.to_value())), ("notifiers", named(notifier.to_value()))])
    {
        properties.insert(key.into(), value);
    }
    let mut defs: Vec<(String, Value)> = defs.into_iter().collect();
    defs.sort_by(|a, b| a.0.cmp(&b.0));
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "etl-stream pipeline",
        "type": "object",
        "required": ["sources", "sinks"],
        "properties": properties,
        "additionalProperties": false,
        "$defs": defs.into_iter().collect::<Map<_, _>>(),
    });
    allow_placeholders(&mut schema);
    schema
}

/// A map of names to what `value` says.
fn named(value: Value) -> Value {
    json!({ "type": "object", "propertyNames": { "pattern": NAME }, "additionalProperties": value })
}

/// Adds what stands beside a node's own settings.
fn open(schema: &mut Map<String, Value>, node: &NodeType) {
    let own = schema.shift_remove("properties");
    let mut properties = Map::new();
    properties.insert("type".into(), json!({ "const": node.name, "description": node.summary }));
    if node.kind != Kind::Source {
        let about = "What it reads: names of sources and operators, or node.output. May be left out when there is one to read.";
        properties.insert("inputs".into(), json!({ "type": "array", "items": { "type": "string" }, "description": about }));
    }
    if let Some(Value::Object(own)) = own {
        properties.extend(own);
    }
    let required: Vec<Value> =
        std::iter::once("type".into()).chain(schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default()).collect();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), properties.into());
    schema.insert("required".into(), required.into());
    schema.insert("additionalProperties".into(), false.into());
}

/// Lets `${NAME}` stand where a number, a boolean or a text of some form is wanted. Patterns bind texts
/// only, so numbers stay as bound as they were.
fn allow_placeholders(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(allow_placeholders),
        Value::Object(map) => {
            let mut types: Vec<Value> = match map.get("type") {
                Some(Value::Array(types)) => types.clone(),
                Some(one @ Value::String(_)) => vec![one.clone()],
                _ => Vec::new(),
            };
            let is = |types: &[Value], word: &str| types.iter().any(|t| t == word);
            if is(&types, "string") {
                if let Some(pattern) = map.get("pattern").and_then(Value::as_str).map(|p| format!("({p})|{PLACEHOLDER}")) {
                    map.insert("pattern".into(), pattern.into());
                }
            } else if ["integer", "number", "boolean"].into_iter().any(|word| is(&types, word)) {
                types.push("string".into());
                map.insert("type".into(), types.into());
                map.insert("pattern".into(), PLACEHOLDER.into());
            }
            map.values_mut().for_each(allow_placeholders);
        }
        _ => {}
    }
}

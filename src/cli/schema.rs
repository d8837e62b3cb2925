//! The JSON Schema of a whole pipeline file, made of the schemas of every registered node type: completion
//! and checks in an editor, private operators included.

use crate::config::{AlertSettings, EngineSettings, NotifierSettings, ServerSettings, Shape, StateSettings};
use crate::{Kind, Registry};
use serde_json::{Map, Value, json};

/// What names look like.
const NAME: &str = "^[a-z][a-z0-9_]*$";

/// The schema.
pub(super) fn schema(registry: &Registry) -> Value {
    let mut defs = Map::new();
    let mut properties = Map::new();
    properties.insert("version".into(), json!({ "const": 1, "description": "The version of the format." }));
    let name = json!({ "type": "string", "pattern": "^[a-z][a-z0-9_-]*$", "description": "The pipeline's name. Default: the file's." });
    properties.insert("name".into(), name);
    let server = part(&Shape::of_type::<ServerSettings>(), &mut defs);
    properties.insert("engine".into(), part(&Shape::of_type::<EngineSettings>(), &mut defs));
    properties.insert("state".into(), part(&Shape::of_type::<StateSettings>(), &mut defs));
    properties.insert("server".into(), json!({ "anyOf": [{ "const": "none" }, server] }));
    let mut defaults = Map::new();
    let kinds = [Kind::Source, Kind::Operator, Kind::Sink];
    let mut sections = Vec::new();
    for kind in kinds {
        let mut fields = Map::new();
        let mut choices = Vec::new();
        for node in registry.types().filter(|t| t.kind == kind) {
            let shape = Shape::of(node);
            let options = shape.options(&[shape.root()]);
            let mut schema = options.iter().find(|o| o.contains_key("properties")).map_or_else(Map::new, |o| (*o).clone());
            for (key, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                fields.entry(key.clone()).or_insert_with(|| field.clone());
            }
            part(&shape, &mut defs);
            open(&mut schema, kind, node.name, node.summary);
            let name = format!("{}.{}", kind.section(), node.name);
            defs.insert(name.clone(), Value::Object(schema));
            choices.push(json!({ "$ref": format!("#/$defs/{name}") }));
        }
        let about = format!("Defaults of {}: laid under each, as far as it has such settings.", kind.section());
        defaults.insert(
            kind.section().into(),
            json!({ "type": "object", "description": about, "properties": fields, "additionalProperties": false }),
        );
        let mut nodes = json!({ "type": "object", "propertyNames": { "pattern": NAME } });
        if let Some(map) = nodes.as_object_mut().filter(|_| !choices.is_empty()) {
            map.insert("additionalProperties".into(), json!({ "oneOf": choices }));
        }
        sections.push((kind.section(), nodes));
    }
    properties.insert("defaults".into(), json!({ "type": "object", "properties": defaults, "additionalProperties": false }));
    properties.extend(sections.into_iter().map(|(name, schema)| (name.to_owned(), schema)));
    let mut named =
        |shape: Shape| json!({ "type": "object", "propertyNames": { "pattern": NAME }, "additionalProperties": part(&shape, &mut defs) });
    properties.insert("alerts".into(), named(Shape::of_type::<AlertSettings>()));
    properties.insert("notifiers".into(), named(Shape::of_type::<NotifierSettings>()));
    let mut defs: Vec<(String, Value)> = defs.into_iter().collect();
    defs.sort_by(|a, b| a.0.cmp(&b.0));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "etl-stream pipeline",
        "type": "object",
        "required": ["sources", "sinks"],
        "properties": properties,
        "additionalProperties": false,
        "$defs": defs.into_iter().collect::<Map<_, _>>(),
    })
}

/// Moves a shape's definitions over, and gives its root.
fn part(shape: &Shape, defs: &mut Map<String, Value>) -> Value {
    defs.extend(shape.defs().iter().map(|(name, schema)| (name.clone(), schema.clone())));
    shape.root().clone()
}

/// Adds what stands beside a node's own settings.
fn open(schema: &mut Map<String, Value>, kind: Kind, name: &str, summary: &str) {
    let own = schema.shift_remove("properties");
    let mut properties = Map::new();
    properties.insert("type".into(), json!({ "const": name, "description": summary }));
    if kind != Kind::Source {
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

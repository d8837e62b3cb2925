//! The reference pages: every setting of every node type, from the same schema that checks the file.

use super::explain::{PAGES, title};
use crate::config::{AlertSettings, EngineSettings, NotifierSettings, ServerSettings, Shape, StateSettings};
use crate::{Kind, NodeType, Registry};
use serde_json::{Map, Value};
use std::fmt::Write;

/// How deep settings within settings are listed.
const MAX_DEPTH: usize = 5;

/// One setting.
pub(super) struct Field {
    /// Its place, such as `batch.max_rows`.
    pub(super) path: String,
    /// What it holds.
    pub(super) form: String,
    /// Whether it must be there.
    pub(super) required: bool,
    /// What it is when it is not.
    pub(super) default: Option<String>,
    /// What it means.
    pub(super) about: String,
}

/// The settings of a shape, those within others behind them.
pub(super) fn fields(shape: &Shape) -> Vec<Field> {
    let mut found = Vec::new();
    walk(shape, &[shape.root()], "", 0, &mut found);
    found
}

fn walk(shape: &Shape, schemas: &[&Value], path: &str, depth: usize, found: &mut Vec<Field>) {
    let options = shape.options(schemas);
    if depth > MAX_DEPTH || Shape::is_secret(&options) {
        return;
    }
    let required = Shape::required(&options);
    for option in &options {
        for (key, schema) in option.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let inner = shape.options(&[schema]);
            let about = |o: &&Map<String, Value>| {
                o.get("description").and_then(Value::as_str).map(|t| t.split_whitespace().collect::<Vec<_>>().join(" "))
            };
            found.push(Field {
                path: path.clone(),
                form: form(shape, &inner),
                required: required.contains(&key.as_str()),
                default: schema.get("default").filter(|d| !d.is_null()).map(plain),
                about: inner.iter().find_map(about).unwrap_or_default(),
            });
            walk(shape, &[schema], &path, depth + 1, found);
        }
        if let Some(inner) = option.get("additionalProperties").filter(|a| a.is_object()) {
            walk(shape, &[inner], &format!("{path}.<name>"), depth + 1, found);
        }
        if let Some(inner) = option.get("items") {
            walk(shape, &[inner], &format!("{path}[]"), depth + 1, found);
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What a setting holds, in few words.
fn form(shape: &Shape, options: &[&Map<String, Value>]) -> String {
    if Shape::is_secret(options) {
        return "secret".into();
    }
    let words = Shape::words(options);
    if !words.is_empty() {
        return words.join(" or ");
    }
    if let Some(form) = Shape::form(options) {
        // "A duration such as 5s." is a duration.
        let noun = form.strip_prefix("A ").or_else(|| form.strip_prefix("An ")).unwrap_or(form);
        let end = [" such as", " as ", ",", ".", ";"].iter().filter_map(|stop| noun.find(stop)).min().unwrap_or(noun.len());
        return noun.get(..end).unwrap_or(noun).to_owned();
    }
    for (ty, word) in [("string", "text"), ("boolean", "true or false"), ("integer", "integer"), ("number", "number")] {
        let says = |o: &&Map<String, Value>| match o.get("type") {
            Some(Value::String(t)) => t == ty,
            Some(Value::Array(types)) => types.iter().any(|t| t == ty),
            _ => false,
        };
        if options.iter().any(says) {
            return word.into();
        }
    }
    if let Some(items) = options.iter().find_map(|o| o.get("items")) {
        return format!("list of {}", form(shape, &shape.options(&[items])));
    }
    "map".into()
}

/// A node as it stands in a file.
pub(super) fn example(node: &NodeType) -> String {
    let mut out = format!("{}:\n  my_{}:\n    type: {}\n", node.kind.section(), node.kind.noun(), node.name);
    if node.kind != Kind::Source {
        out.push_str("    inputs: [name]\n");
    }
    for line in node.example.trim_end().lines() {
        let _ = writeln!(out, "{}", format!("    {line}").trim_end());
    }
    out
}

/// The whole reference as one page of Markdown.
pub(super) fn page(registry: &Registry, command: &clap::Command) -> String {
    let mut out = String::from("# Reference\n\nMade by `etl-stream generate reference`; do not edit.\n\n## Pipeline file\n");
    for (key, about, shape) in [
        ("engine", "How the pipeline runs.", Shape::of_type::<EngineSettings>()),
        ("state", "Where progress is kept.", Shape::of_type::<StateSettings>()),
        ("server", "The HTTP server; `server: none` turns it off.", Shape::of_type::<ServerSettings>()),
        ("alerts.<name>", "Conditions worth telling someone about.", Shape::of_type::<AlertSettings>()),
        ("notifiers.<name>", "Who is told.", Shape::of_type::<NotifierSettings>()),
    ] {
        let _ = writeln!(out, "\n### `{key}`\n\n{about}\n");
        settings(&mut out, &shape);
    }
    for kind in [Kind::Source, Kind::Operator, Kind::Sink] {
        let _ = writeln!(
            out,
            "\n## {}{}",
            kind.section().get(..1).unwrap_or_default().to_uppercase(),
            kind.section().get(1..).unwrap_or_default()
        );
        for node in registry.types().filter(|t| t.kind == kind) {
            let _ = writeln!(out, "\n### `{}`\n\n{}\n", node.name, node.summary);
            settings(&mut out, &Shape::of(node));
            let _ = writeln!(out, "\n```yaml\n{}```", example(node));
        }
    }
    out.push_str("\n## Commands\n");
    let mut command = command.clone();
    command.build();
    for sub in command.get_subcommands_mut().filter(|c| !c.is_hide_set()) {
        let name = sub.get_name().to_owned();
        let help = sub.clone().bin_name(format!("etl-stream {name}")).term_width(100).render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        let _ = writeln!(out, "\n### `etl-stream {name}`\n\n```text\n{}\n```", lines.join("\n").trim_end());
    }
    out.push_str("\n## Error codes\n\n| Code | Meaning |\n|---|---|\n");
    for (code, page) in PAGES {
        let _ = writeln!(out, "| [`{code}`](../errors/{code}.md) | {} |", title(page));
    }
    out
}

fn settings(out: &mut String, shape: &Shape) {
    let fields = fields(shape);
    if fields.is_empty() {
        out.push_str("No settings.\n");
        return;
    }
    out.push_str("| Setting | Type | Default | Meaning |\n|---|---|---|---|\n");
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
    for field in fields {
        let default = if field.required { "required".to_owned() } else { field.default.map(|d| format!("`{d}`")).unwrap_or_default() };
        let _ =
            writeln!(out, "| `{}` | {} | {} | {} |", field.path.replace('|', "\\|"), cell(&field.form), cell(&default), cell(&field.about));
    }
}

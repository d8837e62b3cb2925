//! Every node type's example builds, and wrong settings are told apart.

use super::{findings, operator, parse_error, try_operator};
use crate::contract::{Findings, Registry};
use serde_json::json;

/// Reads the little YAML of the examples: it is YAML's flow style at the right of a line's colon.
#[test]
fn examples_build() {
    let registry = super::register(Registry::empty());
    let settings = [
        ("filter", json!({ "tables": ["public.orders"], "where": "status <> 'draft' AND total > 0" })),
        (
            "project",
            json!({ "columns": { "public.orders": { "keep": ["id", "status", "total"] }, "public.customers": { "drop": ["note"] } } }),
        ),
        ("rename", json!({ "tables": { "public.orders": "public.sales" }, "columns": { "public.orders.note": "comment" } })),
        (
            "mask",
            json!({ "columns": {
                "public.customers.email": { "with": "hmac_sha256", "key": { "env": "MASK_KEY" } },
                "public.customers.phone": { "with": "keep_last", "characters": 4 },
                "public.customers.note": { "with": "redact" } } }),
        ),
        (
            "cast",
            json!({ "columns": { "public.orders.total": "numeric(18,4)", "public.orders.placed": "timestamptz" }, "on_error": "null_with_exact" }),
        ),
        ("route", json!({ "tables": ["public.orders"], "routes": { "big": "total > 1000", "eu": "region = 'eu'" } })),
    ];
    assert_eq!(registry.types().count(), settings.len());
    for (name, settings) in settings {
        let node = registry.types().find(|t| t.name == name).expect(name);
        // what stands here says the same as the example: every word of it is there
        for word in node.example.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()) {
            assert!(settings.to_string().contains(word), "{name}: the example has {word}");
        }
        let mut found = Findings::default();
        (node.parse)(settings.clone()).unwrap_or_else(|e| panic!("{name}: {e}")).check(&mut found);
        assert!(found.0.is_empty(), "{name}: {found:?}");
        if name == "mask" {
            let error = try_operator(name, &settings).err().map(|e| e.code.id);
            assert!(error.is_none() || std::env::var_os("MASK_KEY").is_none() && error == Some("CFG0020"));
        } else {
            operator(name, &settings);
        }
        let mut generator = schemars::SchemaGenerator::default();
        (node.schema)(&mut generator);
    }
}

#[test]
fn wrong_settings() {
    for (name, settings, expected) in [
        ("filter", json!({ "where": "a =" }), vec![("CFG0030", "/where")]),
        ("route", json!({ "routes": {} }), vec![("CFG0034", "/routes")]),
        ("route", json!({ "routes": { "rest": "a = 1", "x": "f(1)" } }), vec![("CFG0034", "/routes/rest"), ("CFG0030", "/routes/x")]),
        ("project", json!({ "columns": { "a.b": {} } }), vec![("CFG0034", "/columns/a.b")]),
        ("project", json!({ "columns": { "a.b": { "keep": ["x"], "drop": ["y"] } } }), vec![("CFG0034", "/columns/a.b")]),
        ("rename", json!({}), vec![("CFG0034", "")]),
        ("rename", json!({ "tables": { "a.b": "x.y", "a.c": "x.y" } }), vec![("CFG0034", "/tables")]),
        ("mask", json!({ "columns": { "email": { "with": "hmac_sha256" } } }), vec![("CFG0034", "/columns/email")]),
        ("mask", json!({ "columns": { "email": { "with": "keep_last" } } }), vec![("CFG0034", "/columns/email")]),
        ("mask", json!({ "columns": { "email": { "with": "nullify", "text": "x" } } }), vec![("CFG0034", "/columns/email")]),
        (
            "mask",
            json!({ "columns": { "email": { "with": "hmac_sha256", "key": { "plain": "short" } } } }),
            vec![("CFG0035", "/columns/email/key")],
        ),
    ] {
        let found = findings(name, &settings);
        assert_eq!(found.iter().map(|(code, pointer)| (*code, &**pointer)).collect::<Vec<_>>(), expected, "{name} {settings}");
    }
    for (name, settings, expected) in [
        (
            "mask",
            json!({ "columns": { "a.b.c": { "with": "rot13" } } }),
            "unknown variant `rot13`, expected one of `hmac_sha256`, `keep_last`, `keep_first`, `nullify`, `redact`",
        ),
        ("mask", json!({ "columns": { "a.b.c": {} } }), "missing field `with`"),
        ("mask", json!({ "columns": { "a.b": { "with": "redact" } } }), "`a.b` is not a column; write schema.table.column"),
        ("cast", json!({ "columns": { "x": "money" } }), "`money` is not a type to cast to; write text, bool"),
        ("cast", json!({ "columns": { "x": "numeric(40,2)" } }), "plain numeric holds any number"),
        ("rename", json!({ "tables": { "a.*": "b.c" } }), "without *"),
        ("filter", json!({ "where": "a", "when_unknown": "x" }), "`refuse`, `forward_delete`, `keep`"),
        ("filter", json!({ "wher": "a" }), "unknown field `wher`"),
    ] {
        let error = parse_error(name, &settings);
        assert!(error.contains(expected), "{name} {settings}: {error}");
    }
}

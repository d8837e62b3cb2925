//! The programs of `examples/`: their own tests, and what their binaries say of nodes that are not built in.

#[path = "../../examples/custom_operator.rs"]
#[expect(dead_code, reason = "a program's main")]
mod custom_operator;
#[path = "../../examples/custom_sink.rs"]
#[expect(dead_code, reason = "a program's main")]
mod custom_sink;
#[path = "../../examples/custom_source.rs"]
#[expect(dead_code, reason = "a program's main")]
mod custom_source;
#[path = "../../examples/embed.rs"]
#[expect(dead_code, reason = "a program's main")]
mod embed;
#[path = "../../examples/enrich/main.rs"]
#[expect(dead_code, reason = "a program's main")]
mod enrich;

use etl_stream::Registry;
use std::fs;
use std::path::Path;

/// Every program, so that none is without a place here.
const PROGRAMS: &[&str] = &["custom_operator.rs", "custom_sink.rs", "custom_source.rs", "embed.rs", "enrich"];

/// What a binary with these nodes says, and its exit code.
fn says(registry: &Registry, arguments: &[&str]) -> (u8, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let arguments = ["mine"].iter().chain(arguments).map(Into::into);
    let code = etl_stream::cli::run_with(registry, arguments, &mut out, &mut err);
    (code, String::from_utf8([out, err].concat()).unwrap())
}

#[test]
fn all_programs_are_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names: Vec<String> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".rs") || folder.join(name).join("main.rs").exists());
    names.sort();
    assert_eq!(names, PROGRAMS);
}

#[test]
fn a_binary_of_its_own_knows_its_nodes() {
    for (registry, name, setting) in [
        (custom_operator::registry(), "trim", "column"),
        (custom_sink::registry(), "ledger", "path"),
        (custom_source::registry(), "lines", "path"),
        (enrich::registry(), "enrich", "dimension"),
    ] {
        let (code, list) = says(&registry, &["list"]);
        assert!(code == 0 && list.lines().any(|line| line.contains(&format!(" {name} "))), "{list}");
        assert!(list.contains("snowflake"), "the built-in ones too: {list}");
        let (code, description) = says(&registry, &["describe", name]);
        assert!(code == 0 && description.contains(setting) && description.contains(&format!("type: {name}")), "{description}");
        for what in ["schema", "reference"] {
            let (code, text) = says(&registry, &["generate", what]);
            assert!(code == 0 && text.contains(name), "{what} of {name}");
        }
        // Mistyped, the nearest is named.
        let (code, help) = says(&registry, &["describe", &format!("{name}s")]);
        assert!(code == 2 && help.contains(&format!("`{name}`")), "{help}");
    }
}

fn blocks<'d>(document: &'d str, language: &str) -> Vec<&'d str> {
    let start = format!("```{language}\n");
    document.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The how-to's operator is the example, and its pipeline does what it says.
#[test]
fn an_operator_in_ten_minutes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/how-to/write-an-operator.md")).unwrap();
    let program = fs::read_to_string(root.join("examples/custom_operator.rs")).unwrap();
    assert_eq!(blocks(&document, "rust"), [program], "src/main.rs of the how-to is examples/custom_operator.rs");
    let folder = tempfile::tempdir().unwrap();
    let [pipeline] = blocks(&document, "yaml")[..] else { panic!("one pipeline file") };
    let file = folder.path().join("pipeline.yaml");
    fs::write(&file, pipeline).unwrap();
    let file = file.to_str().unwrap();
    let registry = custom_operator::registry();
    let (code, said) = says(&registry, &["validate", file]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = says(&registry, &["run", file, "--until", "caught-up"]);
    assert_eq!(code, 0, "{said}");
    let written = crate::harness::history(&folder.path().join("out"), "bench.mask_filter");
    assert!(!written.is_empty());
}

/// The crates that the how-to names are those that the program uses, in the versions that the workspace has.
#[test]
fn the_how_tos_manifest_is_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/how-to/write-an-operator.md")).unwrap();
    let workspace = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let [manifest] = blocks(&document, "toml")[..] else { panic!("one manifest") };
    for line in manifest.lines().filter(|line| line.starts_with("serde") || line.starts_with("schemars")) {
        let (name, version) = line.split_once(" = ").unwrap();
        let version = version.split('"').nth(1).unwrap();
        let of_workspace = workspace.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
        assert!(of_workspace.contains(&format!("\"{version}\"")), "{line}");
    }
}

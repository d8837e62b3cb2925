//! The preflight: whether the account, its objects and the tables' names let the sink work. Nothing is made.
//!
//! Privileges are looked up, not tried: a role that has them by another role is told apart from one that has none
//! only by Snowflake itself.

use super::context::Shared;
use super::dead_letter::DeadLetters;
use super::errors::{SF_DEAD_LETTER, SF_MISSING};
use super::names::{TableName, quote, taken};
use super::plan::{Places, TablePlan};
use crate::contract::{CheckContext, Checks, CodedError, TableSchema};
use crate::writable::writable;
use std::collections::HashSet;
use std::sync::Arc;

/// A preflight under way.
pub(super) struct Preflight<'a> {
    pub(super) shared: &'a Shared,
    pub(super) cx: &'a CheckContext,
    pub(super) checks: &'a mut Checks,
}

/// Which of the sink's schemas there are.
///
/// # Errors
/// `SF0004` when the database is not there for the role.
pub(super) async fn found_schemas(shared: &Shared) -> Result<HashSet<String>, CodedError> {
    let naming = &shared.naming;
    let database = quote(&naming.database);
    let doing = format!("looking for the schemas of database {database}");
    let query = format!("SELECT SCHEMA_NAME FROM {database}.INFORMATION_SCHEMA.SCHEMATA WHERE SCHEMA_NAME IN (?, ?)");
    let found = shared.sql.query(&doing, &query, &[&naming.schema, &naming.landing_schema]).await.map_err(|error| {
        if error.is_transient() || error.code.id != "SF0010" && error.code.id != "SF0004" {
            return error;
        }
        CodedError::definite(SF_MISSING, format!("database {database} was not found, or the role may not use it"))
            .hint(format!("CREATE DATABASE {database}; GRANT USAGE ON DATABASE {database} TO ROLE …"))
            .caused_by(error)
    })?;
    Ok(found.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// The refusal of a schema that is missing and not to be made.
pub(super) fn no_schema(name: &str) -> CodedError {
    CodedError::definite(SF_MISSING, format!("schema {name} was not found, or the role may not use it"))
        .hint(format!("CREATE SCHEMA {name}, or set `create_schema: true`"))
}

/// The refusal to merge without a warehouse.
pub(super) fn no_warehouse() -> CodedError {
    CodedError::definite(SF_MISSING, "there is no warehouse to merge with")
        .hint("set `warehouse`, or give the user a DEFAULT_WAREHOUSE, and grant the role USAGE on it")
}

impl Preflight<'_> {
    /// Looks at everything.
    pub(super) async fn look(mut self, tables: &[Arc<TableSchema>]) {
        self.shared.http.hurry();
        self.letters();
        // Names and keys need nobody's answer.
        let fit: Vec<&Arc<TableSchema>> = tables.iter().filter(|table| self.fits(table)).collect();
        let doing = "reaching Snowflake";
        let query = "SELECT CURRENT_VERSION(), CURRENT_ROLE(), CURRENT_WAREHOUSE()";
        let Some(rows) = self.checks.take(self.shared.sql.query(doing, query, &[]).await) else { return };
        let cell = |at: usize| rows.first().and_then(|row| row.get(at)?.as_deref());
        let role = cell(1).unwrap_or_default().to_owned();
        self.checks.fine(format!("the key is accepted: Snowflake {}, role {role}", cell(0).unwrap_or_default()));
        match cell(2) {
            Some(warehouse) => self.checks.fine(format!("warehouse {warehouse} merges")),
            None if self.shared.options.merge => self.checks.wrong(no_warehouse()),
            None => {}
        }
        if self.checks.take(self.shared.streaming.reach().await).is_some() {
            self.checks.fine("Snowpipe Streaming can be reached");
        }
        let Some(found) = self.checks.take(found_schemas(self.shared).await) else { return };
        let naming = &self.shared.naming;
        let mut schemas = vec![&naming.schema];
        if naming.landing_schema != naming.schema {
            schemas.push(&naming.landing_schema);
        }
        for schema in schemas {
            let name = format!("{}.{}", quote(&naming.database), quote(schema));
            let (object, privilege) = match (found.contains(schema), self.shared.options.create_schema) {
                (true, _) => (format!("SCHEMA {name}"), "CREATE TABLE"),
                (false, true) => {
                    self.checks.fine(format!("schema {name} does not exist; `run` makes it"));
                    (format!("DATABASE {}", quote(&naming.database)), "CREATE SCHEMA")
                }
                (false, false) => {
                    self.checks.wrong(no_schema(&name));
                    continue;
                }
            };
            self.granted(&object, privilege, &role).await;
        }
        self.places(&fit).await;
    }

    fn letters(&mut self) {
        if let DeadLetters::Folder(folder) = &self.shared.dead_letters
            && let Err(error) = writable(&folder.0)
        {
            let message = format!("files cannot be made in the folder for dead letters, \"{}\"", folder.0.display());
            let error = CodedError::definite(SF_DEAD_LETTER, message).caused_by(error);
            self.checks.wrong(error.hint("let the pipeline's user write there, or set `dead_letter` to another place"));
        }
    }

    /// Whether the table has a place and, where it is needed, a key.
    fn fits(&mut self, table: &Arc<TableSchema>) -> bool {
        let options = &self.shared.options;
        let places = Places::of(&self.shared.naming, &table.source, &table.schema, &table.name);
        let plan = self.checks.take(TablePlan::new(table, options.merge, options.strict, None));
        let claim = self.checks.take(self.shared.targets.claim(&self.shared.naming, &places, options.merge, table));
        plan.is_some() && claim.is_some()
    }

    /// Whether the role itself was granted a privilege. Others may have it through a role of theirs.
    async fn granted(&mut self, object: &str, privilege: &str, role: &str) {
        let shown = self.shared.sql.query("looking for privileges", &format!("SHOW GRANTS ON {object}"), &[]).await;
        let Ok(rows) = shown else {
            self.checks.fine(format!("privileges on {object} are not shown to role {role}, and were not looked at"));
            return;
        };
        // created_on, privilege, granted_on, name, granted_to, grantee_name, … (Snowflake reference, SHOW GRANTS)
        let cell = |row: &Vec<Option<String>>, at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let granted = rows.iter().any(|row| cell(row, 5) == role && [privilege, "OWNERSHIP"].contains(&cell(row, 1).as_str()));
        if granted {
            self.checks.fine(format!("role {role} has {privilege} on {object}"));
        } else {
            let message = format!("role {role} has no {privilege} on {object} of its own");
            self.checks
                .doubt(message, format!("unless it has it through another role: GRANT {privilege} ON {object} TO ROLE {}", quote(role)));
        }
    }

    /// Whether the tables' places are free, or theirs already.
    async fn places(&mut self, tables: &[&Arc<TableSchema>]) {
        let naming = &self.shared.naming;
        let query = format!(
            "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM {}.INFORMATION_SCHEMA.COLUMNS WHERE TABLE_SCHEMA IN (?, ?)",
            quote(&naming.database)
        );
        let there = self.shared.sql.query("looking for the tables that exist", &query, &[&naming.schema, &naming.landing_schema]).await;
        let Some(there) = self.checks.take(there) else { return };
        let there: HashSet<(String, String)> =
            there.into_iter().filter_map(|row| <[Option<String>; 2]>::try_from(row).ok()).filter_map(|[s, t]| Some((s?, t?))).collect();
        let exists = |name: &TableName| there.contains(&(name.schema.clone(), name.table.clone()));
        let name = naming.progress();
        let mut owners = Vec::new();
        if exists(&name) {
            let Some(found) = self.checks.take(self.shared.progress(&name).owners().await) else { return };
            owners = found;
        }
        let (mut begun, mut made) = (0, 0);
        for table in tables {
            let places = Places::of(naming, &table.source, &table.schema, &table.name);
            let target = places.target.sql();
            let own = |owner: &super::progress::ProgressKey| {
                (owner.source.as_str(), owner.schema.as_str(), owner.table.as_str()) == (&table.source, &table.schema, &table.name)
            };
            match owners.iter().find(|(_, place)| *place == target) {
                Some((owner, _)) if !own(owner) => {
                    self.checks.wrong(taken(&places.target, table, (&owner.source, &owner.schema, &owner.table)));
                }
                Some((owner, _)) if *owner.pipeline != *self.cx.pipeline => {
                    let by = format!("{} (pipeline \"{}\")", owner.source, owner.pipeline);
                    self.checks.wrong(taken(&places.target, table, (&by, &owner.schema, &owner.table)));
                }
                Some(_) => begun += 1,
                None if self.shared.options.merge && exists(&places.target) => self.checks.doubt(
                    format!("table {target} exists, and this pipeline has not made it: it is altered, and rows are merged into it"),
                    "rename it, or set `schema` or `table` so that the pipeline's tables have a place of their own",
                ),
                None => made += 1,
            }
        }
        self.checks.fine(format!("{begun} tables are there and this pipeline's; {made} will be made"));
    }
}

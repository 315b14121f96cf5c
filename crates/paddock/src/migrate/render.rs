//! The plan as text and as JSON.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use super::plan::{Part, Plan, Refused, Row, Step};
use crate::table::table;

/// Columns of a line.
const WIDTH: usize = 110;

/// For people.
pub(super) fn text(plan: &Plan) -> String {
    let mut text = String::new();
    wrap(&mut text, "Plan: ", &format!("{}.", plan.summary));
    text.push('\n');
    let head = ["SERVER", "ROLE", "CLIENTS", "CONFIGURATION", "DATA"].map(str::to_owned);
    let row = |row: &Row| {
        let Row { name, role, clients, file, data_dir } = row;
        [name.clone(), (*role).to_owned(), clients.clone(), file.clone(), data_dir.clone()]
    };
    let rows: Vec<_> = std::iter::once(head).chain(plan.servers.iter().map(row)).collect();
    text.push_str(&table(&rows));
    if !plan.warnings.is_empty() {
        text.push_str("\nOther than with Apache, or worth a look:\n");
        for warning in &plan.warnings {
            wrap(&mut text, "  - ", warning);
        }
    }
    for (number, step) in plan.steps.iter().enumerate() {
        let _written = writeln!(text, "\n{number}. {}", step.title);
        for part in &step.parts {
            wrap(&mut text, mark(part.kind), &part.text);
            for command in &part.commands {
                let _written = writeln!(text, "        {command}");
            }
        }
    }
    text
}

/// What stands before a part.
fn mark(kind: &str) -> &'static str {
    match kind {
        "check" => "   Check:   ",
        "failure" => "   Failure: ",
        "back" => "   Back:    ",
        _ => "   Do:      ",
    }
}

/// Lines of limited width, the further ones indented as the mark is wide.
fn wrap(out: &mut String, mark: &str, text: &str) {
    let indent = " ".repeat(mark.len());
    let mut line = mark.to_owned();
    for word in text.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line.len() > mark.len() {
            out.push_str(line.trim_end());
            out.push('\n');
            line.clone_from(&indent);
        }
        if line.len() > mark.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

/// For programs.
pub(super) fn json(plan: &Plan) -> Json {
    let server = |row: &Row| {
        json!({
            "name": row.name,
            "role": row.role,
            "clients": row.clients,
            "file": row.file,
            "data_dir": row.data_dir,
        })
    };
    let part =
        |part: &Part| json!({ "kind": part.kind, "text": part.text, "commands": part.commands });
    let step = |step: &Step| {
        json!({
            "kind": step.kind,
            "server": step.server,
            "title": step.title,
            "parts": step.parts.iter().map(part).collect::<Vec<_>>(),
        })
    };
    json!({
        "summary": plan.summary,
        "refused": [],
        "servers": plan.servers.iter().map(server).collect::<Vec<_>>(),
        "warnings": plan.warnings,
        "steps": plan.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

/// Why there is none.
pub(super) fn refused_text(refused: &Refused) -> String {
    let mut text = "there is no plan for these servers:\n".to_owned();
    for problem in &refused.0 {
        wrap(&mut text, "  - ", problem);
    }
    text
}

/// The same for programs.
pub(super) fn refused_json(refused: &Refused) -> Json {
    json!({ "summary": null, "refused": refused.0, "servers": [], "warnings": [], "steps": [] })
}

//! Tables in docs that a command writes: they stand between two markers.

use std::fs;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

const END: &str = "<!-- end -->";

fn begin(command: &str) -> String {
    format!("<!-- begin: written by `{command}` -->\n")
}

/// Replaces what stands between the markers of `command` in a file of the workspace.
pub(crate) fn update(workspace: &Workspace, file: &str, command: &str, table: &str) -> Result<()> {
    let path = workspace.root.join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {file}"))?;
    let text = replace(&text, command, table).with_context(|| file.to_owned())?;
    fs::write(&path, text).with_context(|| format!("cannot write {file}"))
}

fn replace(text: &str, command: &str, table: &str) -> Result<String> {
    let begin = begin(command);
    let (before, rest) = text.split_once(&begin).context("the first marker is missing")?;
    let (_, after) = rest.split_once(END).context("the last marker is missing")?;
    Ok(format!("{before}{begin}\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() -> Result<()> {
        let text = format!("above\n{}old\n{END}\nbelow", begin("x"));
        let replaced = replace(&text, "x", "new")?;
        assert_eq!(replaced, format!("above\n{}\nnew\n{END}\nbelow", begin("x")));
        assert!(replace(&text, "y", "new").is_err());
        Ok(())
    }
}

//! `memtrace completions` and `memtrace man`: what the command line says of itself, for shells and for
//! `man`.

use std::{fs, io, path::PathBuf, process::ExitCode};

use anyhow::anyhow;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{
    Cli, Common, Outcome,
    failure::Failure,
    output::{Output, Stream},
};

/// Writes the completions of a shell.
///
/// bash: memtrace completions bash > /etc/bash_completion.d/memtrace
///
/// zsh: memtrace completions zsh > "${fpath[1]}/_memtrace"
///
/// fish: memtrace completions fish > ~/.config/fish/completions/memtrace.fish
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Writes them.
    pub(super) fn main(self, common: &Common) -> Outcome {
        Output::open(common, Stream::Stdout)?.write_text(&completions(self.shell))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the man pages.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// A folder that gets a page for memtrace and one for each command; without it the first goes to
    /// stdout.
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Man {
    /// Writes them.
    pub(super) fn main(self, common: &Common) -> Outcome {
        let Some(folder) = self.folder else {
            let page = first_page().map_err(anyhow::Error::from)?;
            Output::open(common, Stream::Stdout)?.write_text(&page)?;
            return Ok(ExitCode::SUCCESS);
        };
        let written = fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &folder));
        written.map_err(|error| {
            Failure::new(
                Failure::FAILED,
                anyhow!("cannot write to {}: {error}", folder.display()),
                "name a folder in which you may write",
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "memtrace", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn first_page() -> io::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    /// Commands that users see.
    fn commands() -> Vec<String> {
        let cli = Cli::command();
        let shown = cli.get_subcommands().filter(|command| !command.is_hide_set());
        let names: Vec<String> = shown.map(|command| command.get_name().to_owned()).collect();
        assert!(names.len() >= 10, "{names:?}");
        names
    }

    #[test]
    fn the_completions_of_every_shell_name_every_command() {
        for shell in Shell::value_variants() {
            let script = completions(*shell);
            for command in commands() {
                assert!(script.contains(&command), "{shell}: {command}");
            }
            assert!(script.contains("--fail-above") || script.contains("fail-above"), "{shell}");
        }
    }

    #[test]
    fn there_is_a_man_page_of_every_command() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        clap_mangen::generate_to(Cli::command(), folder.path()).expect("there is room");
        let first = first_page().expect("it is rendered");
        for command in commands() {
            assert!(first.contains(&format!("memtrace\\-{command}(1)")), "{command}: {first}");
            let page = folder.path().join(format!("memtrace-{command}.1"));
            let page = fs::read_to_string(page).expect("it is there");
            assert!(page.contains(".SH OPTIONS"), "{command}: {page}");
        }
        assert!(folder.path().join("memtrace.1").is_file());
    }
}

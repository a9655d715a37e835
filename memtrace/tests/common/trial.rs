//! What trials of several tests share.

use std::env;

use libtest_mimic::{Completion, Failed, Trial};

/// A test that needs nothing.
pub(crate) fn anywhere(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// Ends a test that needs what is not there: it is left out, but where `CI` is set it fails.
pub(crate) fn without(what: &str) -> Result<Completion, Failed> {
    if env::var_os("CI").is_some() {
        return Err(Failed::from(format!("there is no {what}, and CI needs it")));
    }
    Ok(Completion::ignored_with(format!("optional: there is no {what}")))
}

/// Tells whether a program can be started.
pub(crate) fn has_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

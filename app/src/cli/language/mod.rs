//! `bramble language …`.

use super::failure::Failure;
use super::remote::{Remote, segment};
use super::shown;
use clap::Subcommand;
use std::process::ExitCode;
use wire::run::LanguageDetail;

#[derive(Subcommand)]
pub enum Verb {
    /// List languages, and which machine can run which
    Ls,
    /// Print a language's example
    Example {
        /// Name or alias, as `python` or `py`
        language: String,
    },
    /// Copy what a language needs from the machine now, so that the first run does not wait for it
    Prepare {
        /// Name or alias, as `python` or `py`
        language: String,
    },
}

pub(crate) async fn run(remote: &Remote, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => list(remote).await?,
        Verb::Example { language } => example(remote, &language).await?,
        Verb::Prepare { language } => {
            let spinner = indicatif::ProgressBar::new_spinner().with_message(format!("copying {language}"));
            spinner.enable_steady_tick(std::time::Duration::from_millis(100));
            let path = format!("/v1/languages/{}/prepare", segment(&language)?);
            let prepared = remote.patiently(reqwest::Method::POST, &path).await;
            spinner.finish_and_clear();
            prepared?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(remote: &Remote) -> Result<(), Failure> {
    let languages: Vec<LanguageDetail> = remote.get("/v1/languages").await?;
    if remote.json {
        shown::json(&languages);
        return Ok(());
    }
    let mut rows = Vec::new();
    for language in languages {
        for on in language.machines {
            let state = match (on.lack.is_empty(), on.copied) {
                (false, _) => format!("no: {}", on.lack),
                (true, true) => "yes".to_owned(),
                (true, false) => "yes, copied at the first run".to_owned(),
            };
            let version = if on.version.is_empty() { "-".to_owned() } else { on.version };
            let names = [vec![language.name.clone()], language.aliases.clone()].concat().join(", ");
            rows.push(vec![names, language.title.clone(), on.node, version, state]);
        }
    }
    shown::table(&["LANGUAGE", "TITLE", "MACHINE", "VERSION", "RUNS"], rows);
    Ok(())
}

async fn example(remote: &Remote, name: &str) -> Result<(), Failure> {
    let languages: Vec<LanguageDetail> = remote.get("/v1/languages").await?;
    let is = |language: &&LanguageDetail| {
        [&language.name].into_iter().chain(&language.aliases).any(|known| known.eq_ignore_ascii_case(name))
    };
    let language = languages.iter().find(is);
    let language = language.ok_or_else(|| {
        Failure::local(format!("no language is called {name:?}")).hint("`bramble language ls` lists them")
    })?;
    if remote.json {
        shown::json(language);
    } else {
        print!("{}", language.example);
    }
    Ok(())
}

//! `wsd serve`: answers over HTTP.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use tokio::net::TcpListener;
use wsd::config::{ConfigError, KeySource, Partial, ServeArgs, SharedArgs};
use wsd::serve::{App, Keys, all_slots, serve};
use wsd_core::{Error, Input, SEED};

use super::answer::load_models;
use super::output::note;
use super::{Ending, GlobalArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd serve
      The built-in pair on http://127.0.0.1:8080; a browser shows the author of each token.
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{\"model\": \"wsd\", \"messages\": [{\"role\": \"user\", \"content\": \"What colour is a fox?\"}]}'
      Any client of OpenAI's protocol works. Each strategy is a model (/v1/models lists them).
  wsd serve --base ./llama-8b --draft ./aligned-1b --max-concurrent 32 -n 1024
      Your own pair; at most 32 answers at a time, of 1024 tokens unless a request says otherwise.
  wsd serve --base vllm+http://a:8000/llama,vllm+http://b:8000/llama --base-key-env BASE_KEY \\
      --draft ./aligned-1b
      In front of two replicas of a base on other machines; docs/scale.md has more.
  WSD_API_KEY=$(cat key) wsd serve --host 0.0.0.0 --port 80
      For other machines. Without a key the server listens to this machine only, unless --insecure.";

/// The arguments of `wsd serve`.
#[derive(Args, Debug)]
#[command(mut_arg("raw", |arg| arg.hide(true)))]
pub(crate) struct ServeCommand {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(flatten)]
    settings: SharedArgs,
}

/// Serves until the server is stopped.
pub(crate) async fn run(args: ServeCommand, global: &GlobalArgs) -> Result<Ending> {
    let flags = args.serve.0.or(args.settings.0);
    let given = flags.clone().or(Partial::load(global.config.as_deref())?);
    let seed = given.get(&SEED);
    let mut settings = global.settings(flags)?;
    let refuse = |name, limit: &str, value: String| {
        Err(ConfigError::Value(Error::Setting { name, limit: limit.to_owned(), value }).into())
    };
    if settings.prompt.raw {
        return refuse("raw", "left out", "true\n  hint: /v1/completions takes raw text".into());
    }
    let (keys, address) = (keys(&settings.serve.keys, global.quiet)?, settings.serve.address);
    if keys.is_empty() && !address.ip().is_loopback() && !settings.serve.insecure {
        let value = format!("{}\n  hint: set WSD_API_KEY or --api-key-file, or use --insecure", address.ip());
        return refuse("host", "a loopback address where there is no API key", value);
    }
    // Binds before the models are loaded, which takes long.
    let listener = TcpListener::bind(address).await.map_err(|error| cannot_listen(address, &error))?;
    let address = listener.local_addr()?;
    let answers = all_slots(settings.serve.max_concurrent);
    let needs = wsd::models::needs_of_any(settings.recipe);
    let models = load_models(&mut settings, &needs, answers, global)?;
    let app = Arc::new(App::new(models, settings, seed, keys));
    if !global.quiet {
        app.report(address).iter().for_each(|line| note(line));
    }
    let cut = serve(app, listener, stopped(global.quiet)).await;
    if cut > 0 {
        bail!(
            "the time to stop was over: {cut} requests were cut off\n  hint: --drain-timeout-seconds gives them more"
        );
    }
    Ok(Ending::Done)
}

/// The error of an address on which the server cannot listen, with the way out.
fn cannot_listen(address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "\n  hint: another program listens there; --port N takes another port, 0 a free one"
        }
        io::ErrorKind::PermissionDenied => "\n  hint: ports below 1024 need rights; --port N takes another port",
        io::ErrorKind::AddrNotAvailable => "\n  hint: this machine has no such address; 0.0.0.0 stands for all it has",
        _ => "",
    };
    anyhow!("cannot listen on {address}: {error}{hint}")
}

/// Reads the API keys.
fn keys(source: &KeySource, quiet: bool) -> Result<Keys> {
    let mut keys = Keys::parse(source.key.as_deref().unwrap_or_default()).context("the API key")?;
    if let Some(path) = &source.file {
        check_access(path, quiet)?;
        let text = Input::SETTINGS.read_text(path)?;
        keys = keys.and(Keys::parse(&text).with_context(|| path.display().to_string())?);
    }
    if keys.is_empty() && (source.key.is_some() || source.file.is_some()) {
        let file = source.file.iter().map(|path| format!("{}: ", path.display())).collect::<String>();
        bail!("{file}the API key is empty\n  hint: an empty key would leave the server open");
    }
    Ok(keys)
}

/// Refuses a file of keys that everybody may change, and tells about one that others may read.
#[cfg(unix)]
fn check_access(path: &Path, quiet: bool) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // A file that is not there is told by its reader.
    let Ok(metadata) = fs_err::metadata(path) else { return Ok(()) };
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o002 != 0 {
        bail!("{}: everybody may change it (mode {mode:03o})\n  hint: chmod 600 makes it yours alone", path.display());
    }
    if metadata.is_file() && mode & 0o044 != 0 && !quiet {
        note(&format!(
            "{}: others on this machine may read the keys (mode {mode:03o}); chmod 600 hides them",
            path.display()
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_access(_: &Path, _: bool) -> Result<()> {
    Ok(())
}

/// Waits until the server is stopped by Ctrl-C or SIGTERM.
async fn stopped(quiet: bool) {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<Option<()>>();
    tokio::select! {
        _ = interrupt => {}
        _ = terminate => {}
    }
    if !quiet {
        note("stopping: running answers are completed first");
    }
}

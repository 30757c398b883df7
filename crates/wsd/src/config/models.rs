//! `[models]`: the models and how they run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde::Serialize;
use wsd_core::{Error, Seat, Setting, TemplateVariables, Values};
use wsd_nn::{Device, Format, KvFormat, LoadOptions};

use super::BUILTIN;
use crate::remote;
use crate::words::any_of;

pub(super) static BASE: LazyLock<Setting> = LazyLock::new(|| {
    static ABOUT: LazyLock<String> = LazyLock::new(|| {
        let schemes = remote::schemes();
        let others: Vec<_> = schemes[1..].iter().map(|scheme| format!("{scheme}+")).collect();
        format!(
            "The large model: a folder, a .gguf file, a Hugging Face name (org/name, org/name@revision, \
             org/name:file.gguf), or an address such as {}+http://host:8000/name (or {}, with http or https); several \
             addresses of one model are separated by commas",
            schemes[0],
            others.join(", ")
        )
    });
    Setting::text("base", &ABOUT, "MODEL").with_default_text("builtin:base")
});
pub(super) static DRAFT: Setting =
    Setting::text("draft", "The small aligned model, named like the base", "MODEL").with_default_text("builtin:draft");
static MODEL: Setting = Setting::texts(
    "model",
    "The model for a further seat, such as judge=./reward-1b; may be repeated, for `middle` also with the same seat, \
         from the smallest model to the largest",
)
.with_placeholder("SEAT=MODEL");
static ADAPTER: Setting = Setting::texts(
    "adapter",
    "A folder of a LoRA adapter in PEFT's form, or of routed experts, for the model of a seat, such as \
     draft=./adapter; may be repeated",
)
.with_placeholder("SEAT=FOLDER");
static HEAD: Setting = Setting::text(
    "head",
    "The folder of a draft head for the base, as `wsd train head` writes it, for the strategy `head`",
    "FOLDER",
)
.speed_only();
static BASE_TEMPLATE: Setting = Setting::text(
    "base_template",
    "The form in which the base reads a chat: plain (the paper's form for bases), own (its chat template), or a \
     template file",
    "FORM",
)
.with_default_text("plain");
static DRAFT_TEMPLATE: Setting =
    Setting::text("draft_template", "The form in which the draft reads a chat: own, plain, or a template file", "FORM")
        .with_default_text("own");
static CHAT_TEMPLATE_KWARGS: Setting = Setting::object(
    "chat_template_kwargs",
    "Variables for the models' chat templates, such as {\"enable_thinking\": false} for models that else reason before \
     they answer; requests may send others",
);
pub(super) static GENERATION_CONFIG: Setting = Setting::flag(
    "generation_config",
    "Take sampling that is not set from the files of the model that begins the answer, as transformers and vLLM do \
     (generation_config.json, or general.sampling of a GGUF file); `=false` ignores them, -v tells what was taken",
    true,
);
static THREADS: Setting = Setting::integer("threads", "Processor threads for each model", 1..=512)
    .with_default_about("all cores")
    .speed_only();
static DEVICE: LazyLock<Setting> = LazyLock::new(|| {
    static ABOUT: LazyLock<String> = LazyLock::new(|| {
        let auto = Device::default().to_string();
        let others: Vec<_> = Device::spellings().filter(|name| *name != auto).collect();
        format!(
            "The device that the models run on: {}, as far as this program was built for it. {auto} is a GPU where \
             there is one; cuda takes as many GPUs as a model needs, and cuda:0,1 divides its layers among these",
            any_of(&others)
        )
    });
    Setting::text("device", &ABOUT, "DEVICE").with_default_text("auto")
});
static DRAFT_DEVICE: Setting =
    Setting::text("draft_device", "The device of the draft, if it is another one, such as cuda:1", "DEVICE")
        .with_default_about("as device");
static DTYPE: Setting =
    Setting::text("dtype", "Number format the weights are converted to, such as f32, bf16 or q8_0", "TYPE")
        .with_default_about("the checkpoint's");
static DRAFT_DTYPE: Setting = Setting::text(
    "draft_dtype",
    "Number format of the draft's weights, if it is another one; q4_0 writes about twice as fast as q8_0",
    "TYPE",
)
.with_default_about("as dtype");
static KV_DTYPE: Setting = Setting::text(
    "kv_dtype",
    "Number format of cached keys and values: f16, bf16, f32, or q8_0, which takes about half the memory of f16",
    "TYPE",
)
.with_default_about("f16, on a GPU the type of activations");
pub(super) static PREFIX_CACHE_TOKENS: Setting = Setting::integer(
    "prefix_cache_tokens",
    "Tokens of ended requests whose keys and values each model keeps, for requests that begin alike; 0 for none, not \
     even among running ones. The time of an answer tells the holder of the same key what its other requests began \
     with; different keys, and requests with another `cache_salt`, share nothing",
    0..=u64::MAX,
)
.with_default_integer(LoadOptions::PREFIX_CACHE_TOKENS as u64)
.speed_only();
static COPY_WEIGHTS: Setting = Setting::flag(
    "copy_weights",
    "Read the weights into memory instead of mapping their files; a mapped file must not be changed in place while it \
     is in use, and shortening it (as cp over it does) ends the process",
    false,
)
.speed_only();
static OFFLINE: Setting =
    Setting::flag("offline", "Use what is on this machine only, download nothing; as HF_HUB_OFFLINE=1 does", false)
        .speed_only();

/// The settings of `[models]`, in the order of the help.
pub(super) fn settings() -> Vec<&'static Setting> {
    vec![
        &BASE,
        &DRAFT,
        &MODEL,
        &ADAPTER,
        &HEAD,
        &BASE_TEMPLATE,
        &DRAFT_TEMPLATE,
        &CHAT_TEMPLATE_KWARGS,
        &GENERATION_CONFIG,
        &THREADS,
        &DEVICE,
        &DRAFT_DEVICE,
        &DTYPE,
        &DRAFT_DTYPE,
        &KV_DTYPE,
        &PREFIX_CACHE_TOKENS,
        &COPY_WEIGHTS,
        &OFFLINE,
    ]
}

/// The form in which a model reads a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum TemplateForm {
    /// The paper's plain form.
    Plain,
    /// The model's own chat template.
    Own,
    /// A chat template in a file.
    File(PathBuf),
}

impl From<TemplateForm> for String {
    fn from(form: TemplateForm) -> Self {
        match form {
            TemplateForm::Plain => "plain".into(),
            TemplateForm::Own => "own".into(),
            TemplateForm::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

impl From<String> for TemplateForm {
    fn from(text: String) -> Self {
        match text.as_str() {
            "plain" => Self::Plain,
            "own" => Self::Own,
            _ => Self::File(text.into()),
        }
    }
}

/// The source of a model and how it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// A folder, a file, a hub name, an address, or `builtin:base` and `builtin:draft`.
    pub name: String,
    /// Further models in the same seat, as a chain of middle models has them.
    pub further: Vec<String>,
    /// The form in which it reads a chat.
    pub template: TemplateForm,
    /// Variables for its chat template.
    pub template_variables: TemplateVariables,
    /// Processor threads; `None` for all cores.
    pub threads: Option<usize>,
    /// Folders of adapters, all added to the model.
    pub adapters: Vec<PathBuf>,
    /// The folder of a draft head on its features.
    pub draft_head: Option<PathBuf>,
    /// The device it runs on.
    pub device: Device,
    /// The format weights are converted to; `None` for the checkpoint's.
    pub dtype: Option<Format>,
    /// The number format of cached keys and values; `None` for the device's.
    pub kv_dtype: Option<KvFormat>,
    /// Tokens of ended requests whose keys and values are kept.
    pub prefix_cache_tokens: usize,
    /// True to read the weights into memory instead of mapping their files.
    pub copy_weights: bool,
    /// True where nothing may be downloaded; if false, the environment may still forbid it.
    pub offline: bool,
}

impl ModelSettings {
    /// The settings of each model in the seat.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        let names = std::iter::once(&self.name).chain(&self.further);
        names.map(|name| Self { name: name.clone(), further: Vec::new(), ..self.clone() })
    }

    /// Tells whether the model is inside the binary.
    #[must_use]
    pub fn is_builtin(&self) -> bool {
        self.name.starts_with(BUILTIN)
    }
}

/// Reads the settings of every model that is named, by seat. Where a model of one's own is in one seat
/// of the pair, the other seat is not filled by a built-in model, which only knows its own world.
///
/// # Errors
/// [`Error::Setting`] for a device, a number format or a seat that does not exist.
pub(super) fn parse(values: &Values) -> Result<BTreeMap<Seat, ModelSettings>, Error> {
    let text = |setting| values.get::<Option<String>>(setting);
    let dtype = dtype(&DTYPE, text(&DTYPE))?;
    let kv_dtype = kv_dtype(text(&KV_DTYPE))?;
    let device = device(&DEVICE, text(&DEVICE))?.unwrap_or_default();
    let template_variables = template_variables(text(&CHAT_TEMPLATE_KWARGS))?;
    let model = |name, template: String, dtype| ModelSettings {
        name,
        further: Vec::new(),
        template: template.into(),
        template_variables: template_variables.clone(),
        threads: values.get(&THREADS),
        adapters: Vec::new(),
        draft_head: None,
        device: device.clone(),
        dtype,
        kv_dtype,
        prefix_cache_tokens: values.get(&PREFIX_CACHE_TOKENS),
        copy_weights: values.get(&COPY_WEIGHTS),
        offline: values.get(&OFFLINE),
    };
    let draft_dtype = self::dtype(&DRAFT_DTYPE, text(&DRAFT_DTYPE))?.or(dtype);
    let draft_head = text(&HEAD).map(PathBuf::from);
    let base = ModelSettings { draft_head, ..model(values.get(&BASE), values.get(&BASE_TEMPLATE), dtype) };
    let draft_device = self::device(&DRAFT_DEVICE, text(&DRAFT_DEVICE))?.unwrap_or_else(|| device.clone());
    let draft = model(values.get(&DRAFT), values.get(&DRAFT_TEMPLATE), draft_dtype);
    let draft = ModelSettings { device: draft_device, ..draft };
    let is_alone = |model: &ModelSettings, is_other_set: bool| !model.is_builtin() && !is_other_set;
    let (has_base, has_draft) = (!is_alone(&draft, values.is_set(&BASE)), !is_alone(&base, values.is_set(&DRAFT)));
    let pair = [(Seat::BASE, base, has_base), (Seat::DRAFT, draft, has_draft)];
    let mut models: BTreeMap<_, _> =
        pair.into_iter().filter(|(.., is_there)| *is_there).map(|(seat, model, _)| (seat, model)).collect();
    for assignment in values.get::<Vec<String>>(&MODEL) {
        let parts = assignment.split_once('=').and_then(|(seat, name)| Some((Seat::find(seat)?, name.to_owned())));
        let is_of_pair = |seat: &Seat| [Seat::BASE, Seat::DRAFT].contains(seat);
        let may_hold = |seat: &Seat| *seat == Seat::MIDDLE || !is_of_pair(seat) && !models.contains_key(seat);
        let (seat, name) = parts.filter(|(seat, _)| may_hold(seat)).ok_or_else(|| {
            let seats = Seat::all().skip(2).map(Seat::name).collect::<Vec<_>>().join(", ");
            let limit = format!("SEAT=MODEL with a seat of its own among {seats}");
            let value = format!("{assignment}\n  hint: --base LARGE --draft SMALL name the two models");
            Error::Setting { name: MODEL.name, limit, value }
        })?;
        if let Some(first) = models.get_mut(&seat) {
            first.further.push(name);
            continue;
        }
        models.insert(seat, model(name, "own".into(), dtype));
    }
    for assignment in values.get::<Vec<String>>(&ADAPTER) {
        let parts = assignment.split_once('=');
        let model = parts.and_then(|(seat, folder)| Some((models.get_mut(&Seat::find(seat)?)?, folder)));
        let (model, folder) = model.ok_or_else(|| {
            let limit = "SEAT=FOLDER with the seat of a model, such as draft=./adapter".to_owned();
            Error::Setting { name: ADAPTER.name, limit, value: assignment.clone() }
        })?;
        model.adapters.push(folder.into());
    }
    Ok(models)
}

fn template_variables(text: Option<String>) -> Result<TemplateVariables, Error> {
    let Some(text) = text else { return Ok(TemplateVariables::default()) };
    let variables = serde_json::from_str(&text).ok().and_then(TemplateVariables::new);
    let limit = || TemplateVariables::LIMIT.to_owned();
    variables.ok_or_else(|| Error::Setting { name: CHAT_TEMPLATE_KWARGS.name, limit: limit(), value: text })
}

fn device(setting: &Setting, name: Option<String>) -> Result<Option<Device>, Error> {
    let Some(name) = name else { return Ok(None) };
    name.parse().map(Some).map_err(|_| {
        let limit = any_of(&Device::spellings().collect::<Vec<_>>());
        Error::Setting { name: setting.name, limit, value: name }
    })
}

fn dtype(setting: &Setting, name: Option<String>) -> Result<Option<Format>, Error> {
    let Some(name) = name else { return Ok(None) };
    match Format::parse(&name).filter(|format| format.is_writable()) {
        Some(format) => Ok(Some(format)),
        None => {
            let known = Format::writable().map(Format::name).collect::<Vec<_>>().join(", ").to_ascii_lowercase();
            Err(Error::Setting { name: setting.name, limit: format!("one of {known}"), value: name })
        }
    }
}

fn kv_dtype(name: Option<String>) -> Result<Option<KvFormat>, Error> {
    let Some(name) = name else { return Ok(None) };
    match KvFormat::parse(&name) {
        Some(format) => Ok(Some(format)),
        None => {
            let known = any_of(&KvFormat::ALL.map(KvFormat::name));
            Err(Error::Setting { name: KV_DTYPE.name, limit: known, value: name })
        }
    }
}

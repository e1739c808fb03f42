//! `perturb keys`. Only public keys are ever printed.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use color_eyre::eyre::{Context, Result, bail, eyre};
use perturb_challenge::file;
use perturb_ledger::genesis::GenesisDelegation;
use perturb_ledger::tx::Delegation;
use perturb_types::{ConsensusKey, ConsensusPair, Hotkey, HotkeyPair, NetworkId, secret};
use perturb_wallet::keyfile::MAX_KEYFILE_BYTES;
use perturb_wallet::{Password, folder, password};
use rand::RngCore as _;
use zeroize::Zeroizing;

use super::args::{KeysCommand, NodeArgs, PlaceArgs};
use super::consensus::{self, Keyring};
use super::delegation::{self, DelegationFile};
use super::{Place, is_text, kept, text_pair};
use crate::role::read_genesis;

/// Bytes of a file whose signature is checked.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;

/// Makes, brings in, shows, delegates, rotates and checks keys.
///
/// # Errors
/// A file that is there already, cannot be read or holds no key; a password or signature that does not
/// fit.
pub fn run(command: KeysCommand) -> Result<()> {
    match command {
        KeysCommand::New { place, encrypt } => new(&place, encrypt),
        KeysCommand::Import { place, from, encrypt, development } => {
            import(&place, from.as_deref(), encrypt, development)
        }
        KeysCommand::Show { data_dir: Some(data_dir), .. } => show_folder(&data_dir),
        KeysCommand::Show { place, .. } => show(&place),
        KeysCommand::Delegate { place, request, node, key, founder, out } => {
            let half = match request {
                Some(path) => Half::Made(path),
                None if founder => Half::Founder(node_key(&node, key.as_ref())?),
                None => Half::Node(node_key(&node, key.as_ref())?, &node),
            };
            delegate(&place, half, out.as_deref())
        }
        KeysCommand::Rotate { place, address, from_epoch, node } => rotate(&place, address, from_epoch, &node),
        KeysCommand::Verify { delegation: Some(path), genesis, .. } => verify_delegation(&path, genesis.as_deref()),
        KeysCommand::Verify { message: Some(path), signature: Some(signature), address: Some(address), .. } => {
            verify_signature(&path, &signature, &address)
        }
        KeysCommand::Verify { place, address, .. } => verify_key(&place, address),
    }
}

fn place_of(args: &PlaceArgs) -> Result<Option<Place>> {
    Ok(match (&args.file, &args.wallet) {
        (Some(file), _) => Some(Place::File(file.clone())),
        (None, Some(name)) => Some(Place::wallet(args.wallets.as_deref(), name, args.hotkey.as_deref())?),
        (None, None) => None,
    })
}

fn wanted(args: &PlaceArgs) -> Result<Place> {
    place_of(args)?.ok_or_else(|| eyre!("name a key file, or a wallet with --wallet and --hotkey"))
}

/// The password that a new key is encrypted with, if it is to be.
fn new_password(args: &PlaceArgs, place: &Place, encrypt: bool) -> Result<Option<Password>> {
    if !encrypt {
        return Ok(None);
    }
    Ok(Some(super::password(args.password_file.as_deref(), &place.path()?, true)?))
}

fn new(args: &PlaceArgs, encrypt: bool) -> Result<()> {
    let place = wanted(args)?;
    let password = new_password(args, &place, encrypt)?;
    let mut entropy = Zeroizing::new([0u8; 16]);
    rand::rng().fill_bytes(&mut entropy[..]);
    let phrase = secret::phrase_of(&entropy).ok_or_else(|| eyre!("no phrase of 16 bytes"))?;
    let pair = HotkeyPair::from_seed(&*secret::seed_from_phrase(&phrase, "")?)?;
    place.create(&pair, Some(&phrase), password.as_ref())?;
    println!("wrote a new secret to {}", place.path()?.display());
    println!("hotkey {}", pair.hotkey());
    Ok(())
}

fn import(args: &PlaceArgs, from: Option<&Path>, encrypt: bool, development: bool) -> Result<()> {
    let place = wanted(args)?;
    let (bytes, named) = match from {
        Some(path) => (perturb_wallet::read_private(path, MAX_KEYFILE_BYTES)?, path.display().to_string()),
        None => (typed()?, "the secret".to_owned()),
    };
    let pair = if is_text(&bytes) {
        text_pair(&bytes, &named, development)?
    } else {
        // The file's own password: --password-file is the new one's where it is to be encrypted.
        let old = args.password_file.as_deref().filter(|_| !encrypt);
        let path = from.unwrap_or(Path::new("standard input"));
        folder::secret_of(path, bytes, || super::password(old, path, false))?
    };
    let password = new_password(args, &place, encrypt)?;
    place.create(&pair, None, password.as_ref())?;
    println!("wrote the secret to {}", place.path()?.display());
    println!("hotkey {}", pair.hotkey());
    Ok(())
}

/// A secret from standard input; a person's is not shown.
fn typed() -> Result<Zeroizing<Vec<u8>>> {
    if std::io::stdin().is_terminal() {
        let text = password::ask_hidden("BIP39 phrase, hex seed or secret URI: ")?;
        return Ok(Zeroizing::new(text.as_bytes().to_vec()));
    }
    let limit = MAX_KEYFILE_BYTES + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    std::io::stdin().lock().take(limit as u64).read_to_end(&mut bytes)?;
    if bytes.len() == limit {
        bail!("standard input has more than {MAX_KEYFILE_BYTES} bytes: it is no secret key");
    }
    Ok(bytes)
}

fn show(args: &PlaceArgs) -> Result<()> {
    let place = wanted(args)?;
    let (path, address) = (place.path()?, place.address(args.password_file.as_deref())?);
    println!("hotkey {address}");
    println!("public key 0x{}", hex::encode(address.0));
    if path.exists() {
        println!("kept in {}, {}", path.display(), kept(&path)?);
    }
    Ok(())
}

fn show_folder(data_dir: &Path) -> Result<()> {
    if !data_dir.join("consensus-key").exists() {
        bail!("{} holds no consensus key: a validator makes it when it starts", data_dir.display());
    }
    for pair in Keyring::open(data_dir)?.iter() {
        println!("consensus key {}", pair.public());
    }
    let waiting = delegation::waiting(data_dir);
    if waiting.exists() {
        let file = DelegationFile::read(&waiting)?;
        println!("waiting: {}", about(&file));
    }
    Ok(())
}

fn about(file: &DelegationFile) -> String {
    let from = file.from_epoch.map_or("as soon as possible".to_owned(), |e| format!("from epoch {e} on"));
    let signed = if file.signature.is_some() { "signed by both" } else { "not signed by the hotkey yet" };
    format!("hotkey {} delegates to {} (number {}), {from}; {signed}", file.hotkey, file.key, file.sequence)
}

fn sequence(node: &NodeArgs) -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs());
    node.sequence.unwrap_or_else(now)
}

/// The consensus key's half of a delegation.
enum Half<'a> {
    /// It is in a file.
    Made(PathBuf),
    /// It is made here.
    Node(ConsensusPair, &'a NodeArgs),
    /// It is made here, for a genesis file.
    Founder(ConsensusPair),
}

/// The consensus key of a node that is named, or its only one.
fn node_key(node: &NodeArgs, key: Option<&ConsensusKey>) -> Result<ConsensusPair> {
    let keys = Keyring::open(&node.data_dir)?;
    match key {
        Some(key) => keys.get(key).cloned().ok_or_else(|| eyre!("{} does not hold {key}", node.data_dir.display())),
        None if keys.iter().count() > 1 => {
            bail!("{} holds several consensus keys: name one with --key", node.data_dir.display())
        }
        None => Ok(consensus::consensus(&node.data_dir)?),
    }
}

fn delegate(args: &PlaceArgs, half: Half<'_>, out: Option<&Path>) -> Result<()> {
    let place = wanted(args)?;
    let pair = place.pair(args.password_file.as_deref())?;
    let mut file = match half {
        Half::Made(path) => DelegationFile::read(&path)?,
        Half::Node(key, node) => {
            let network = read_genesis(&node.genesis)?.network_id();
            DelegationFile::accept(network, pair.hotkey(), &key, sequence(node), None)
        }
        Half::Founder(key) => {
            let d = Delegation::sign(&NetworkId([0; 32]), &pair, &key, 0);
            return tell(&serde_json::to_string_pretty(&GenesisDelegation::of(&d))?, out);
        }
    };
    file.endorse(&pair)?;
    tell(&serde_json::to_string_pretty(&file)?, out)?;
    if out.is_some() {
        println!("{}", about(&file));
        println!("put it into the node's data folder as delegation.json");
    }
    Ok(())
}

fn tell(text: &str, out: Option<&Path>) -> Result<()> {
    match out {
        Some(path) => perturb_wallet::create(path, format!("{text}\n").as_bytes())?,
        None => println!("{text}"),
    }
    Ok(())
}

fn rotate(args: &PlaceArgs, address: Option<Hotkey>, from_epoch: Option<u64>, node: &NodeArgs) -> Result<()> {
    let waiting = delegation::waiting(&node.data_dir);
    if waiting.exists() {
        bail!(
            "{} waits already: the node takes it away when the state has it; remove it to give that rotation up",
            waiting.display()
        );
    }
    if !node.data_dir.is_dir() {
        bail!("{} is no data folder of a node", node.data_dir.display());
    }
    let network = read_genesis(&node.genesis)?.network_id();
    let own = node.data_dir.join("hotkey");
    let place = match (place_of(args)?, address) {
        (None, None) if own.exists() => Some(Place::File(own)),
        (None, None) => bail!("whose key is it? name the hotkey, or its address with --address"),
        (place, _) => place,
    };
    let pair = place.as_ref().map(|p| p.pair(args.password_file.as_deref())).transpose()?;
    let hotkey = pair.as_ref().map(HotkeyPair::hotkey).or(address).ok_or_else(|| eyre!("no hotkey is named"))?;
    let key = consensus::make_next(&node.data_dir)?;
    let mut file = DelegationFile::accept(network, hotkey, &key, sequence(node), from_epoch);
    if let Some(pair) = &pair {
        file.endorse(pair)?;
    }
    file.create(&waiting)?;
    println!("new consensus key {}", file.key);
    println!("{}", about(&file));
    println!("it waits in {}; restart the node, so that it has the key", waiting.display());
    if pair.is_none() {
        println!(
            "a node with the hotkey signs by itself; or run `perturb keys delegate --request` where the hotkey is"
        );
    }
    Ok(())
}

fn verify_delegation(path: &Path, genesis: Option<&Path>) -> Result<()> {
    let file = DelegationFile::read(path)?;
    if let Some(genesis) = genesis {
        let network = read_genesis(genesis)?.network_id();
        if network != file.network {
            bail!("the delegation is for network {}, and {} is {network}", file.network, genesis.display());
        }
    }
    match file.verified().wrap_err_with(|| format!("delegation file {}", path.display()))? {
        Some(_) => println!("valid: {}", about(&file)),
        None => bail!("{} lacks the hotkey's signature; the consensus key's verifies", path.display()),
    }
    Ok(())
}

fn verify_signature(path: &Path, signature: &str, address: &Hotkey) -> Result<()> {
    let message = file::read(path, MAX_MESSAGE_BYTES).wrap_err_with(|| format!("{}", path.display()))?;
    let mut bytes = [0u8; 64];
    hex::decode_to_slice(signature.strip_prefix("0x").unwrap_or(signature), &mut bytes)
        .map_err(|_| eyre!("--signature is not 64 bytes in hex"))?;
    if !address.verify_raw(&message, &bytes) {
        bail!("the signature over {} is not {address}'s", path.display());
    }
    println!("valid: {address} signed {}", path.display());
    Ok(())
}

fn verify_key(args: &PlaceArgs, address: Option<Hotkey>) -> Result<()> {
    let place = wanted(args)?;
    let found = place.pair(args.password_file.as_deref())?.hotkey();
    if let Some(address) = address
        && address != found
    {
        bail!("{} holds {found}, not {address}", place.path()?.display());
    }
    println!("valid: {} holds {found}", place.path()?.display());
    Ok(())
}

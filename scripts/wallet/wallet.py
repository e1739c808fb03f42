"""Bittensor's official tools beside perturb-wallet, on throw-away keys.

    python wallet.py FOLDER INTEROP

Writes FOLDER/wallets/sdk and FOLDER/sdk.json: wallets of every form, addresses of secret URIs and
signatures, all by the official package. Then runs INTEROP (the example of perturb-wallet) on FOLDER,
which opens these wallets, signs with each of their keys, and makes wallets of its own; and checks with
the official package what came out. Fails at the first difference.
"""

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import sys
from pathlib import Path

from bittensor.keyfiles import Keyfile
from bittensor.wallet import Wallet
from bittensor_core import (
    Keypair,
    encrypt_keyfile_data,
    keyfile_data_encryption_method,
    serialized_keypair_to_keyfile_data,
    verify,
)
from Crypto.Cipher import AES
from Crypto.Util import Counter

PASSWORD = "correct horse battery staple"
PHRASE = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"
SEED = "0x" + "5a" * 32
LEGACY_SALT = b"Iguesscyborgslikemyselfhaveatendencytobeparanoidaboutourorigins"
URIS = [
    "//Alice",
    "//Bob//stash",
    f"{PHRASE}//hard/soft///password",
    f"{PHRASE}///пароль",
    f"{SEED}//1/2/0x",
    f"{SEED}/18446744073709551615/18446744073709551616//a-name-of-more-than-thirty-two-bytes",
]
MESSAGES = [b"", b"perturb", b"<Bytes>wrapped</Bytes>", bytes(range(256)) * 5]


def pad(data):
    n = 16 - len(data) % 16
    return data + bytes([n]) * n


def ansible_vault(data):
    """As the package `ansible-vault` wrote it for earlier versions of the tools."""
    salt = hashlib.sha256(b"ansible salt").digest()
    derived = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, 10_000, 80)
    counter = Counter.new(128, initial_value=int.from_bytes(derived[64:], "big"))
    sealed = AES.new(derived[:32], AES.MODE_CTR, counter=counter).encrypt(pad(data))
    mac = hmac.new(derived[32:64], sealed, hashlib.sha256).hexdigest()
    body = f"{salt.hex()}\n{mac}\n{sealed.hex()}".encode().hex()
    lines = [body[i : i + 80] for i in range(0, len(body), 80)]
    return ("\n".join(["$ANSIBLE_VAULT;1.1;AES256", *lines]) + "\n").encode()


def fernet(data):
    """As the package `cryptography` wrote it for the first versions of the tools."""
    key = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), LEGACY_SALT, 10_000_000, 32)
    iv = hashlib.sha256(b"fernet iv").digest()[:16]
    sealed = AES.new(key[16:], AES.MODE_CBC, iv).encrypt(pad(data))
    signed = b"\x80" + (1_700_000_000).to_bytes(8, "big") + iv + sealed
    return base64.urlsafe_b64encode(signed + hmac.new(key[:16], signed, hashlib.sha256).digest())


def write(path, data):
    path.write_bytes(data)
    path.chmod(0o600)


def make(folder):
    wallets = folder / "wallets"
    shutil.rmtree(wallets, ignore_errors=True)
    quiet = {"suppress": True, "overwrite": True}
    keys = {}

    def wallet(hotkey):
        return Wallet("sdk", hotkey, str(wallets))

    seedless = Keypair.create_from_uri(f"{PHRASE}//seedless/soft", 1)
    plain = json.loads(bytes(serialized_keypair_to_keyfile_data(seedless)))
    assert "secretSeed" not in plain
    wallet("phrase").regenerate_hotkey(mnemonic=PHRASE, **quiet)
    wallet("seed").regenerate_hotkey(seed=SEED, **quiet)
    wallet("private").regenerate_hotkey(private_key=plain["privateKey"], **quiet)
    wallet("ed25519").regenerate_hotkey(mnemonic=PHRASE, crypto_type=0, **quiet)
    # The public side is the other scheme's too: it is refused before any address is read.
    for name in ("phrase", "seed", "private"):
        keys[name] = wallet(name).hotkey.ss58_address

    hotkeys = wallets / "sdk" / "hotkeys"
    for name, seal in [("ansible", ansible_vault), ("fernet", fernet)]:
        pair = Keypair.create_from_uri(f"{PHRASE}//{name}", 1)
        data = seal(bytes(serialized_keypair_to_keyfile_data(pair)))
        assert keyfile_data_encryption_method(data) in ("Ansible Vault", "legacy")
        write(hotkeys / name, data)
        # The official tools open what was sealed here: it is what they once wrote.
        assert Keyfile(hotkeys / name).get_keypair(PASSWORD).ss58_address == pair.ss58_address
        keys[name] = pair.ss58_address

    cold = wallet("phrase")
    cold.regenerate_coldkey(seed="0x" + "c0" * 32, coldkey_password=PASSWORD, **quiet)
    assert (wallets / "sdk" / "coldkey").read_bytes().startswith(b"$NACL")

    signatures = []
    for uri in URIS[:3]:
        pair = Keypair.create_from_uri(uri, 1)
        signatures += [[pair.ss58_address, m.hex(), bytes(pair.sign(m)).hex()] for m in MESSAGES]
    about = {
        "password": PASSWORD,
        "coldkey": cold.coldkeypub.ss58_address,
        "hotkeys": keys,
        "uris": [[uri, Keypair.create_from_uri(uri, 1).ss58_address] for uri in URIS],
        "messages": [m.hex() for m in MESSAGES],
        "signatures": signatures,
    }
    (folder / "sdk.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    return about


def check(folder, about):
    ours = json.loads((folder / "ours.json").read_text())
    signed = set()
    for address, message, signature in ours["signatures"]:
        pair = Keypair(ss58_address=address)
        data, signature = bytes.fromhex(message), bytes.fromhex(signature)
        assert pair.verify(data, signature), f"a signature of {address} over {message[:16]} does not verify"
        assert verify(data, signature, address) and not pair.verify(data + b"x", signature)
        signed.add((address, message))
    want = {(a, m) for a in [*about["hotkeys"].values(), about["coldkey"]] for m in about["messages"]}
    assert want <= signed, "a key or a message was left out"

    for name, address in ours["hotkeys"].items():
        wallet = Wallet("ours", name, str(folder / "wallets"))
        pair = wallet.hotkey_file.get_keypair(PASSWORD)
        assert pair.ss58_address == wallet.hotkeypub.ss58_address == address, name
        signature = bytes(pair.sign(b"from our file"))
        assert Keypair(ss58_address=address).verify(b"from our file", signature), name
        sealed = wallet.hotkey_file.is_encrypted()
        assert sealed == (name == "sealed"), name
    # What they write from our key is what we read: the fields are the same ones.
    pair = Wallet("ours", "plain", str(folder / "wallets")).hotkey
    theirs = json.loads(bytes(serialized_keypair_to_keyfile_data(pair)))
    mine = json.loads((folder / "wallets/ours/hotkeys/plain").read_text())
    assert theirs == mine, sorted(set(theirs) ^ set(mine))
    assert bytes(encrypt_keyfile_data(b"x", PASSWORD)).startswith(b"$NACL")
    return len(ours["signatures"]), len(ours["hotkeys"])


def main():
    folder, interop = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True, exist_ok=True)
    about = make(folder)
    subprocess.run([interop, str(folder)], check=True)
    signatures, wallets = check(folder, about)
    print(
        f"wallets: {len(about['hotkeys']) + 1} official ones opened by us, {signatures} of our signatures and "
        f"{wallets} of our wallets accepted by the official package"
    )


main()

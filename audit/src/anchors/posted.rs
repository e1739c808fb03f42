//! An anchor as it stands on the chain: in a commitment, or at the end of the extrinsic that made it.
//!
//! A signed extrinsic ends with its call, and a call with its arguments, so that neither the runtime's types nor its
//! extensions have to be known, only the numbers of these two calls (as of spec 461). Whether the call succeeded is not
//! asked: the hotkey's signature over these bytes, in a finalized block, is the anchor.
//!
//! ```text
//! Compact length ‖ 84 (signed, version 4) ‖ 00 ‖ account 32 ‖ 01 (sr25519) ‖ signature 64 ‖ extensions ‖ call
//! commitment: 12 00 ‖ netuid u16 ‖ 0c (3 fields) ‖ 3a ‖ label 57 ‖ 83 ‖ state root 32 ‖ 83 ‖ certificate 32
//! remark:     00 07 ‖ e501 (121 bytes) ‖ anchor 121
//! ```

use perturb_ledger::anchor::ANCHOR_BYTES;
use perturb_ledger::{Anchor, AnchorKind};
use perturb_types::Hotkey;
use scale::{Compact, Decode, Encode};

use crate::chain::{Commitment, Field};

/// Bytes before the extensions: version, account, signature.
const SIGNED_BYTES: usize = 1 + 1 + 32 + 1 + 64;

/// The anchor in a commitment; `None` where it is about something else.
pub fn in_commitment(commitment: &Commitment) -> Option<Anchor> {
    let [Field::Raw(label), Field::Sha256(state_root), Field::Sha256(certificate)] = commitment.fields.as_slice()
    else {
        return None;
    };
    Anchor::from_fields(label, state_root, certificate).ok()
}

/// Pallet, call and whatever stands before the anchor's own bytes.
fn opening(kind: AnchorKind, netuid: u16) -> Vec<u8> {
    match kind {
        AnchorKind::Commitment => {
            let [low, high] = netuid.to_le_bytes();
            vec![18, 0, low, high, 12]
        }
        AnchorKind::Remark => [&[0, 7][..], &Compact(ANCHOR_BYTES as u32).encode()].concat(),
    }
}

/// The anchor that `hotkey` posted by this extrinsic.
///
/// # Errors
/// Why it is none.
pub fn in_extrinsic(bytes: &[u8], hotkey: &Hotkey, kind: AnchorKind, netuid: u16) -> Result<Anchor, &'static str> {
    let mut rest = bytes;
    let length = Compact::<u32>::decode(&mut rest).map_err(|_| "it has no length")?;
    if usize::try_from(length.0).ok() != Some(rest.len()) {
        return Err("its length is not the one it says");
    }
    if rest.len() < SIGNED_BYTES || rest[..2] != [0x84, 0] || rest[34] != 1 {
        return Err("it is not signed by an sr25519 account in version 4");
    }
    if rest[2..34] != hotkey.0 {
        return Err("another account signed it");
    }
    let opening = opening(kind, netuid);
    let content = match kind {
        // Each field has a byte before it.
        AnchorKind::Commitment => ANCHOR_BYTES + 3,
        AnchorKind::Remark => ANCHOR_BYTES,
    };
    let call = rest[SIGNED_BYTES..].len().checked_sub(opening.len() + content);
    let call = call.and_then(|extensions| rest[SIGNED_BYTES + extensions..].strip_prefix(opening.as_slice()));
    let call = call.ok_or("its call is no anchor's")?;
    let anchor = match kind {
        AnchorKind::Remark => Anchor::from_bytes(call),
        AnchorKind::Commitment => {
            let mut fields = call;
            let read: Result<[Field; 3], _> = Decode::decode(&mut fields);
            let Ok([Field::Raw(label), Field::Sha256(state_root), Field::Sha256(certificate)]) = read else {
                return Err("its fields are no anchor's");
            };
            Anchor::from_fields(&label, &state_root, &certificate)
        }
    };
    anchor.map_err(|_| "its bytes are no anchor's")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use perturb_types::Digest;

    use super::*;

    const HOTKEY: Hotkey = Hotkey([6; 32]);

    fn anchor() -> Anchor {
        let digest = |b| Digest([b; 32]);
        Anchor { epoch: 3, height: 90, header: digest(7), state_root: digest(8), certificate: digest(9) }
    }

    fn call(kind: AnchorKind) -> Vec<u8> {
        let anchor = anchor();
        let fields = [&[58][..], &anchor.label(), &[131], &[8; 32], &[131], &[9; 32]].concat();
        match kind {
            AnchorKind::Remark => [&[0, 7, 0xe5, 1][..], &anchor.to_bytes()].concat(),
            AnchorKind::Commitment => [&[18, 0, 2, 0, 12][..], &fields].concat(),
        }
    }

    fn extrinsic(call: &[u8]) -> Vec<u8> {
        let body = [&[0x84, 0][..], &HOTKEY.0, &[1], &[0; 64], &[0xf5, 3, 4, 0, 0], call].concat();
        [Compact(body.len() as u32).encode(), body].concat()
    }

    #[test]
    fn an_anchor_is_read_from_the_end_of_its_extrinsic() {
        for kind in [AnchorKind::Commitment, AnchorKind::Remark] {
            assert_eq!(in_extrinsic(&extrinsic(&call(kind)), &HOTKEY, kind, 2), Ok(anchor()));
        }
        let label = Field::Raw(anchor().label().to_vec());
        let fields = vec![label, Field::Sha256(Digest([8; 32])), Field::Sha256(Digest([9; 32]))];
        assert_eq!(in_commitment(&Commitment { deposit: 0, block: 4, fields: fields.clone() }), Some(anchor()));
        assert_eq!(in_commitment(&Commitment { deposit: 0, block: 4, fields: fields[..2].to_vec() }), None);
    }

    #[test]
    fn what_somebody_else_signed_or_something_else_is_no_anchor() {
        let good = extrinsic(&call(AnchorKind::Remark));
        let read = |bytes: &[u8]| in_extrinsic(bytes, &HOTKEY, AnchorKind::Remark, 2);
        assert_eq!(in_extrinsic(&good, &Hotkey([5; 32]), AnchorKind::Remark, 2), Err("another account signed it"));
        assert_eq!(in_extrinsic(&good, &HOTKEY, AnchorKind::Commitment, 2), Err("its call is no anchor's"));
        let commitment = extrinsic(&call(AnchorKind::Commitment));
        assert!(in_extrinsic(&commitment, &HOTKEY, AnchorKind::Commitment, 3).is_err(), "of another subnet");
        let plain = extrinsic(&[&[0, 0][..], &call(AnchorKind::Remark)[2..]].concat());
        assert_eq!(read(&plain), Err("its call is no anchor's"), "a remark without an event");
        for n in 0..good.len() {
            assert!(read(&good[..n]).is_err());
        }
        let mut foreign = call(AnchorKind::Remark);
        foreign[4] = b'x';
        assert_eq!(read(&extrinsic(&foreign)), Err("its bytes are no anchor's"));
    }
}

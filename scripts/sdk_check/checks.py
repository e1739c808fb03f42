"""The checks, in the order in which a validator would meet them."""

from __future__ import annotations

import bittensor as bt
import ours
from bittensor import ErrorCode, calls, storage
from setting import NETUID

TAO = 10**9
# A condition that does not come at all ends the run; a slow machine does not.
PATIENCE_S = 120
VERSION_KEY = 7
MODULE = storage.SubtensorModule


async def run(chain, folder, report, arguments) -> None:
    """All checks."""
    wallets = {name: make_wallet(name, folder) for name in ("one", "two", "idle", "poor", "miner", "stranger")}
    register(chain, wallets)
    async with bt.Client(chain.url, fallback_endpoints=[], archive_endpoints=[]) as client:
        session = Session(chain, client, report, wallets, arguments)
        await session.reading()
        await session.plain_weights()
        await session.refusals()
        await session.commitments()
        await session.timelocked_weights()
        await session.refused_commits()
        await session.serving()
        await session.changes()
        await session.same_weights()


def make_wallet(name: str, folder) -> bt.Wallet:
    """A wallet with fresh keys, in the SDK's own files."""
    wallet = bt.Wallet(name=name, hotkey="hot", path=str(folder / "wallets"))
    wallet.create_new_coldkey(use_password=False, overwrite=True, suppress=True)
    wallet.create_new_hotkey(use_password=False, overwrite=True, suppress=True)
    return wallet


def register(chain, wallets: dict) -> None:
    """Uids 0 to 4: two validators, one with stake and no permit, two without stake."""
    stakes = {"one": (3000, True), "two": (2000, True), "idle": (1500, False), "poor": (0, False), "miner": (0, False)}
    for name, (tao, permit) in stakes.items():
        hotkey = wallets[name].hotkey.ss58_address
        chain.ask("dev_registerHotkey", NETUID, hotkey, wallets[name].coldkeypub.ss58_address)
        chain.ask("dev_setStake", NETUID, hotkey, tao * TAO)
        chain.ask("dev_setPermit", NETUID, hotkey, permit)


class Session:
    """What the groups of checks share."""

    def __init__(self, chain, client, report, wallets, arguments):
        self.chain, self.client, self.report = chain, client, report
        self.wallets, self.arguments = wallets, arguments

    async def stored(self, mecid: int, uid: int, block: int | None = None) -> list[tuple[int, int]]:
        """A row of weights as the SDK reads it, raw."""
        row = await self.client.query(MODULE.Weights, [mecid * 4096 + NETUID, uid], block=block)
        return [(int(u), int(v)) for u, v in row or []]

    async def refused(self, what: str, call, wallet: str, name: str) -> None:
        """Submit a call as it is; it must fail with this error, which the SDK names for the block's and the pool's."""
        result = await self.client.submit_call(call, self.wallets[wallet], signer="hotkey")
        got = result.error.name if result.error else None
        holds = not result.success and got == name
        self.report.check(f"{what}: {name}", holds, f"{result.success} {got} {result.message}")

    async def refused_by_sdk(self, what: str, intent, wallet: str, code, needle: str = "") -> None:
        """Submit an intent that the SDK itself must refuse, from what it reads of the chain."""
        try:
            result = await self.client.execute(intent, self.wallets[wallet])
            self.report.check(f"the SDK refuses {what}", False, result)
        except bt.BittensorError as error:
            holds = getattr(error, "code", None) == code and needle in str(error)
            self.report.check(f"the SDK refuses {what}", holds, f"{getattr(error, 'code', None)} {error}")

    # ---- the groups

    async def reading(self) -> None:
        report, client = self.report, self.client
        ss58 = {name: wallet.hotkey.ss58_address for name, wallet in self.wallets.items()}
        report.check("connects and reads the head", await client.block() > 0)
        report.equal("reads the block time", await client.block_time(), self.arguments.block_time_ms / 1000)
        report.check("waits for a block", (await client.wait_for_block(timeout=PATIENCE_S)).number > 0)
        info = await client.block_info()
        report.check("decodes a block with its timestamp", info is not None and len(info.extrinsics) >= 1, info)

        graph = await client.subnets.metagraph(NETUID)
        report.equal("metagraph: the hotkeys by uid", graph.hotkeys, list(ss58.values())[:5])
        coldkeys = [wallet.coldkeypub.ss58_address for wallet in list(self.wallets.values())[:5]]
        report.equal("metagraph: the coldkeys", graph.coldkeys, coldkeys)
        report.equal("metagraph: the permits", [n.validator_permit for n in graph], [True, True, False, False, False])
        report.equal("metagraph: validators", [n.uid for n in graph.validators], [0, 1])
        stakes = [int(n.raw["total_stake"]) if hasattr(n, "raw") else n.total_stake.rao for n in graph]
        report.equal("metagraph: the stakes", stakes, [3000 * TAO, 2000 * TAO, 1500 * TAO, 0, 0])
        neurons = await client.neurons.all(NETUID)
        report.equal("neurons: uid and hotkey", [(n.uid, n.hotkey) for n in neurons], list(enumerate(graph.hotkeys)))
        report.equal("neurons: the permits", [n.validator_permit for n in neurons], [True, True, False, False, False])
        report.equal("the uid of a hotkey", await client.read("uid", hotkey_ss58=ss58["two"], netuid=NETUID), 1)
        stranger = await client.read("uid", hotkey_ss58=ss58["stranger"], netuid=NETUID)
        report.equal("no uid for a stranger", stranger, None)

        hyper = await client.read("subnet_hyperparameters", netuid=NETUID)
        expected = {
            "tempo": 40, "weights_version": VERSION_KEY, "min_allowed_weights": 1, "max_weights_limit": 65535,
            "weights_rate_limit": 0, "commit_reveal_period": 1, "commit_reveal_weights_enabled": False,
        }
        report.equal("hyperparameters", {name: hyper.get(name) for name in expected}, expected)
        version = await client.query(MODULE.CommitRevealWeightsVersion)
        report.equal("the version of commits", int(version), 4)

        view = await client.at()
        following = await view.read("next_epoch_start_block", netuid=NETUID)
        last = await client.query(MODULE.LastEpochBlock, [NETUID], block=view.block)
        report.equal("the next epoch", following, int(last) + 40)
        epoch = await client.wait_for_epoch(NETUID, timeout=PATIENCE_S)
        report.equal("an epoch runs where it was announced", (epoch.previous + 40, epoch.netuid), (epoch.block, NETUID))
        status = await client.read("epoch_status", netuid=NETUID)
        report.check("the epoch's status", status["tempo"] == 40 and status["last_epoch_block"] >= epoch.block, status)

    async def plain_weights(self) -> None:
        report, client = self.report, self.client
        wanted = {0: {3: 1.0, 4: 3.0}, 1: {4: 1.0}}
        expected = {0: [(3, 21845), (4, 65535)], 1: [(4, 65535)]}
        for mecid, weights in wanted.items():
            intent = bt.SetWeights(netuid=NETUID, weights=weights, mechid=mecid, version_key=VERSION_KEY)
            result = await client.execute(intent, self.wallets["one"])
            report.check(f"sets weights plainly on mechanism {mecid}", result.success, result.message)
            report.equal(f"reads them back from mechanism {mecid}", await self.stored(mecid, 0), expected[mecid])
            matrix = await client.read("weights", netuid=NETUID, mechid=mecid)
            total = sum(weights.values())
            close = all(abs(matrix[0][uid] - value / total) < 1e-4 for uid, value in weights.items())
            report.check(f"reads them as shares from mechanism {mecid}", close, matrix)
        updates = await client.query(MODULE.LastUpdate, [NETUID])
        age = await client.read("blocks_since_last_update", netuid=NETUID, uid=0)
        report.check("the last update moved", int(updates[0]) > 0 and age < 1000, (updates, age))
        result = await client.execute(
            bt.SetWeights(netuid=NETUID, weights={3: 1, 4: 1}, version_key=VERSION_KEY + 2), self.wallets["two"]
        )
        report.check("a newer version key is accepted", result.success, result.message)

    async def refusals(self) -> None:
        def plain(dests, weights, version_key=VERSION_KEY, mecid=0, netuid=NETUID):
            return calls.SubtensorModule.set_mechanism_weights(
                netuid=netuid, mecid=mecid, dests=dests, weights=weights, version_key=version_key
            )

        await self.refused("no permit", plain([3], [1]), "idle", "NeuronNoValidatorPermit")
        await self.refused("a wrong version key", plain([3], [1], VERSION_KEY - 1), "one", "IncorrectWeightVersionKey")
        await self.refused("a uid twice", plain([3, 3], [1, 1]), "one", "DuplicateUids")
        await self.refused("an unknown uid", plain([77], [1]), "one", "UidVecContainInvalidOne")
        await self.refused("too many uids", plain(list(range(9)), [1] * 9), "one", "UidsLengthExceedUidsInSubNet")
        await self.refused("unequal lengths", plain([3, 4], [1]), "one", "WeightVecNotEqualSize")
        await self.refused("a mechanism that is not there", plain([3], [1], mecid=5), "one", "MechanismDoesNotExist")
        await self.refused("no stake, in the pool", plain([3], [1]), "poor", "StakeAmountTooLow")
        intent = bt.SetWeights(netuid=NETUID, weights={3: 1}, version_key=VERSION_KEY)
        await self.refused_by_sdk("a stranger", intent, "stranger", ErrorCode.NOT_REGISTERED)
        self.chain.ask("dev_setWeightsRateLimit", NETUID, 10_000)
        await self.refused_by_sdk("what comes too fast", intent, "one", ErrorCode.RATE_LIMITED, "rate limit")
        await self.refused("too fast, in the pool", plain([3], [1]), "one", "RateLimitExceeded")
        self.chain.ask("dev_setWeightsRateLimit", NETUID, 0)
        self.chain.ask("dev_setCommitReveal", NETUID, True)
        await self.refused("commit-reveal on", plain([3], [1]), "one", "CommitRevealEnabled")
        self.chain.ask("dev_setCommitReveal", NETUID, False)

    async def commitments(self) -> None:
        report, client = self.report, self.client
        digest = "0x" + bytes(range(32)).hex()
        call = calls.Commitments.set_commitment(netuid=NETUID, info={"fields": [[{"Sha256": digest}]]})
        result = await client.submit_call(call, self.wallets["one"], signer="hotkey")
        report.check("sets a commitment", result.success, result.message)
        found = await client.subnets.commitments(NETUID)
        entry = found.get(self.wallets["one"].hotkey.ss58_address)
        report.equal("reads the commitment back", entry and (entry.data, entry.uid), (f"sha256:{digest}", 0))
        graph = await client.subnets.metagraph(NETUID)
        in_graph = graph.neuron(0).commitment
        report.equal("the metagraph has it too", in_graph and in_graph.data, f"sha256:{digest}")
        await self.timelocked_commitment()
        remark = calls.System.remark_with_event(remark="0x" + b"anchor".hex())
        result = await client.submit_call(remark, self.wallets["one"], signer="hotkey")
        report.check("a remark costs what the hotkey has not", not result.success and "fee" in result.message, result)
        self.chain.ask("dev_endow", self.wallets["one"].hotkey.ss58_address, TAO)
        result = await client.submit_call(remark, self.wallets["one"], signer="hotkey")
        names = [event.get("event_id") for event in result.events]
        report.check("a remark that is paid for leaves its event", result.success and "Remarked" in names, result)

    async def timelocked_commitment(self) -> None:
        """A commitment that the chain opens at a round of its beacon."""
        sealed = bt.timelock.encrypt("the answer", reveal_in=9)
        field = {"TimelockEncrypted": {"encrypted": sealed.encrypted, "reveal_round": sealed.reveal_round}}
        call = calls.Commitments.set_commitment(netuid=NETUID, info={"fields": [[field]]})
        result = await self.client.submit_call(call, self.wallets["two"], signer="hotkey")
        self.report.check("sets a timelocked commitment", result.success, result.message)
        hotkey = self.wallets["two"].hotkey.ss58_address
        entry = (await self.client.subnets.commitments(NETUID))[hotkey]
        self.report.equal("it is sealed", (entry.status, entry.reveal_round), ("sealed", sealed.reveal_round))
        await self.client.wait_for_timestamp(sealed.reveal_at, timeout=PATIENCE_S)
        # The round comes in the next block with its time, and opens the commitment in the one after.
        await self.client.wait_for_block(await self.client.block() + 3, timeout=PATIENCE_S)
        entry = (await self.client.subnets.commitments(NETUID))[hotkey]
        self.report.equal("the chain opens it", entry.status, "revealed")
        # Read as the SDK's own test of this does: its `value` takes the first byte for a length, which is not there.
        revealed = await self.client.query(storage.Commitments.RevealedCommitments, [NETUID, hotkey])
        self.report.equal("and has its content", [text for text, _ in revealed or []], ["the answer"])

    async def timelocked_weights(self) -> None:
        report, client = self.report, self.client
        self.chain.ask("dev_setCommitReveal", NETUID, True)
        wanted = {0: {3: 2.0, 4: 1.0}, 1: {3: 1.0, 4: 1.0}}
        expected = {0: [(3, 65535), (4, 32768)], 1: [(3, 65535), (4, 65535)]}
        before = {mecid: await self.stored(mecid, 1) for mecid in wanted}
        # Rounds come every three seconds whatever the blocks do, so with blocks this fast the SDK finds no round for a
        # commit in an epoch's last nine blocks that is not over already: begin with the epoch.
        await client.wait_for_epoch(NETUID, timeout=PATIENCE_S)
        rounds = {}
        for mecid, weights in wanted.items():
            intent = bt.SetWeights(netuid=NETUID, weights=weights, mechid=mecid, version_key=VERSION_KEY)
            result = await client.execute(intent, self.wallets["two"])
            report.check(f"commits timelocked weights on mechanism {mecid}", result.success, result.message)
            rounds[mecid] = result.data.get("reveal_round")
            pending = await client.read("timelocked_weight_commits", netuid=NETUID, mechid=mecid)
            entries = [entry for epoch in pending.values() for entry in epoch]
            mine = (self.wallets["two"].hotkey.ss58_address, rounds[mecid])
            seen = [(entry["hotkey"], entry["reveal_round"]) for entry in entries]
            report.equal(f"reads the pending commit of mechanism {mecid}", seen, [mine])
            row = await self.stored(mecid, 1)
            report.equal(f"nothing is revealed yet on mechanism {mecid}", row, before[mecid])
        updates = (await client.query(MODULE.LastUpdate, [NETUID]))[1]
        revealed = await self.wait_for_reveals({mecid * 4096 + NETUID for mecid in wanted}, "two")
        for mecid in wanted:
            index = mecid * 4096 + NETUID
            report.check(f"the chain reveals mechanism {mecid}", index in revealed, revealed)
            row = await self.stored(mecid, 1, revealed.get(index))
            report.equal(f"the revealed weights of mechanism {mecid}", row, expected[mecid])
            pending = await client.read("timelocked_weight_commits", netuid=NETUID, mechid=mecid)
            report.equal(f"no commit is pending on mechanism {mecid}", pending, {})
        after = (await client.query(MODULE.LastUpdate, [NETUID]))[1]
        report.equal("revealing is no update", after, updates)

    async def wait_for_reveals(self, indices: set[int], wallet: str) -> dict[int, int]:
        """Storage index → block of the event that says it was revealed; what came within three epochs."""
        client, found = self.client, {}
        hotkey = self.wallets[wallet].hotkey.ss58_address
        deadline = await client.block() + 3 * 40
        async for header in client.blocks():
            block_hash = await client._substrate.block_hash(header.number)
            for event in await client._substrate.events(block_hash):
                event = event.get("event", event)
                if event.get("event_id") == "TimelockedWeightsRevealed":
                    index, who = event["attributes"]
                    if str(who) == hotkey:
                        found[int(index)] = header.number
            if found.keys() >= indices or header.number > deadline:
                return found
        return found

    async def refused_commits(self) -> None:
        def commit(reveal_round, version=4, mecid=0):
            return calls.SubtensorModule.commit_timelocked_mechanism_weights(
                netuid=NETUID, mecid=mecid, commit=b"\x01" * 64, reveal_round=reveal_round, commit_reveal_version=version
            )

        far = 2**40
        await self.refused("another version of commits", commit(far, 3), "one", "IncorrectCommitRevealVersion")
        await self.refused("a commit for no mechanism", commit(far, mecid=5), "one", "MechanismDoesNotExist")
        await self.refused("a round that is over, in the pool", commit(1), "one", "InvalidRevealRound")
        await self.refused("a commit without stake, in the pool", commit(far), "poor", "StakeAmountTooLow")
        self.chain.ask("dev_setWeightsRateLimit", NETUID, 10_000)
        await self.refused("a commit too fast", commit(far), "two", "CommittingWeightsTooFast")
        self.chain.ask("dev_setWeightsRateLimit", NETUID, 0)
        self.chain.ask("dev_setCommitReveal", NETUID, False)
        await self.refused("a commit where there is no commit-reveal", commit(far), "one", "CommitRevealDisabled")

    async def serving(self) -> None:
        report, client, wallet = self.report, self.client, self.wallets["miner"]
        certificate = bytes([1]) + bytes(range(128, 160))
        intent = bt.ServeAxonTls(netuid=NETUID, ip="1.2.3.4", port=8091, certificate="0x" + certificate.hex())
        result = await client.execute(intent, wallet)
        report.check("serves an axon with a certificate", result.success, result.message)
        stored = await client.query(MODULE.NeuronCertificates, [NETUID, wallet.hotkey.ss58_address])
        expected = {"public_key": "0x" + certificate[1:].hex(), "algorithm": 1}
        report.equal("reads the certificate back", stored, expected)
        axon = (await client.subnets.metagraph(NETUID)).neuron(4).axon
        report.check("the metagraph has the axon", "1.2.3.4:8091" in str(axon), axon)

    async def changes(self) -> None:
        """What happens to a subnet and its chain while a client is connected."""
        report, client = self.report, self.client
        # Not so late that the regular epoch comes first.
        await client.wait_for_epoch(NETUID, timeout=PATIENCE_S)
        pending = await client.block() + 12
        self.chain.ask("dev_setPendingEpoch", NETUID, pending)
        status = await client.read("epoch_status", netuid=NETUID)
        seen = (status["pending_epoch_at"], status["next_epoch_start_block"])
        report.equal("an epoch out of turn is announced", seen, (pending, pending))
        self.chain.ask("dev_setPermitsByStake", True)
        epoch = await client.wait_for_epoch(NETUID, timeout=PATIENCE_S)
        report.equal("it runs then", epoch.block, pending)
        permits = [neuron.validator_permit for neuron in await client.neurons.all(NETUID)]
        report.equal("an epoch gives permits by stake", permits, [True, True, True, False, False])

        version = await client._substrate.spec_version()
        self.chain.ask("dev_upgradeRuntime", version + 1)
        # The SDK asks for the version again when its own copy is twelve seconds old.
        deadline = await client.block() + 100
        while await client._substrate.spec_version() == version and await client.block() < deadline:
            await client.wait_for_block(timeout=PATIENCE_S)
        report.equal("notices an upgrade of the runtime", await client._substrate.spec_version(), version + 1)
        intent = bt.SetWeights(netuid=NETUID, weights={4: 1.0}, version_key=VERSION_KEY)
        result = await client.execute(intent, self.wallets["idle"])
        report.check("sets weights after the upgrade", result.success, result.message)
        report.equal("and reads them", await self.stored(0, 2), [(4, 65535)])

    async def same_weights(self) -> None:
        """What the SDK and what we read of both mechanisms at one block."""
        block = await self.client.block()
        block_hash = await self.client._substrate.block_hash(block)
        for mecid in (0, 1):
            rows = await self.client.query_map(MODULE.Weights, [mecid * 4096 + NETUID], block=block)
            sdk = {int(uid): [(int(u), int(v)) for u, v in row] for uid, row in rows}
            own = ours.read_weights(self.arguments.our_reader, self.chain.url, NETUID, mecid, block_hash)
            self.report.check(f"we and the SDK read the same of mechanism {mecid}", sdk == own and bool(sdk), (sdk, own))

"""The subnet on which the checks run."""

NETUID = 2
GENESIS = {
    "stake_threshold_tao": 1000,
    "beacon": {"secret_seed": "sdk-check"},
    "subnets": [
        {
            "netuid": NETUID,
            "tempo": 40,
            "mechanisms": 2,
            "min_allowed_weights": 1,
            "max_weights_limit": 65535,
            "weights_version_key": 7,
            "weights_set_rate_limit": 0,
        }
    ],
}

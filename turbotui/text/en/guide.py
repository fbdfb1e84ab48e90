"""The page from the WebUI guide, in English."""

from __future__ import annotations

GUIDE = {
    "guide.title": "From the WebUI guide: its buttons and scripts, our keys",
    "guide.moral": (
        "Its moral is ours: memory is controlled, not hoped for. Each of its steps is one key "
        "here, with a receipt of the bytes that came back."
    ),
    "guide.restart": 'Button "restart application"',
    "guide.restart_ours": (
        "{hard_cleanup}, turbotui cleanup: a fresh worker in seconds; queue, drafts and settings "
        "stay. {restart} restarts the engine itself."
    ),
    "guide.background": 'Button "background view"',
    "guide.background_ours": (
        "the memory bar and panel 3: every byte by its owner, cache apart from weights. {log_file} "
        "shows a WebUI's own log here."
    ),
    "guide.open": 'Button "open application"',
    "guide.open_ours": (
        "turbotui: attaches to the engine that runs, or starts the one there can be; a second one "
        "cannot come about."
    ),
    "guide.soft": "Step 1, soft unload: button, empty_cache, wait 2 s",
    "guide.soft_ours": (
        "{unload}, turbotui unload: nothing is copied to the CPU; what came back is proven by NVML "
        "in milliseconds, and loads again at the bus's rate."
    ),
    "guide.hard": "Step 2, hard cleanup: restart, then nvidia-smi --gpu-reset",
    "guide.hard_ours": (
        "{hard_cleanup}: ends our worker, proves its bytes back, reloads. {reset} resets a GPU as "
        "the last resort: conditions listed, its index typed."
    ),
    "guide.cold": 'Step 3, cold load: "Load Model", wait 3 to 5 s',
    "guide.cold_ours": (
        "{switch} ↵ switches in one go and proves the unload before it loads; {previous} goes "
        "back. {add} may follow at once: the queue waits."
    ),
    "guide.emergency": "At 95 %: empty_cache in another process, shared.model.unet = None",
    "guide.emergency_ours": (
        "{free}, turbotui free: reaches the process that has it, safe under a running job; a "
        "banner names what can go before it is late."
    ),
    "guide.environment": "PYTORCH_CUDA_ALLOC_CONF, --no-half-vae, --disable-nan-check",
    "guide.environment_ours": (
        'allocator = "auto" or "guide" in config.toml; status shows what is in force. The other '
        "two have nothing to do here."
    ),
    "guide.components": "Load components: UNet only, no VAE, dual models only for I2V",
    "guide.components_ours": (
        "by itself: each stage holds what it needs; residency (dit_only, keep_text, keep_experts) "
        "says what stays. turbotui explain tells it before."
    ),
    "guide.baseline": "Daily baseline check, pkill -f app.py",
    "guide.baseline_ours": (
        "{findings}, turbotui check: hourly and by key; names processes with owner and pid. {kill} "
        "ends one of them, by pid and start time."
    ),
    "guide.tiers": "Tiers: which model on 16, 24, 40 GB",
    "guide.tiers_ours": (
        "computed for this card: the new job ({add}) shows peak and time as you type, the switch "
        "({switch}) whether it fits and what goes."
    ),
    "guide.logs": "webui_startup_latest.log: CUDA memory allocated, OOM",
    "guide.logs_ours": (
        "panel 6 tells loads, evictions and OOM with bytes; {report} last night. {log_file} "
        "follows such a file, GBK too; turbotui leaks --log FILE tells its leaks and remedies."
    ),
    "guide.last_resort": "Last resort script: pkill python, reset, rm -rf outputs",
    "guide.last_resort_ours": (
        "{full_cleanup}, turbotui cleanup --all: ends all of ours and what you tick, no other "
        "Python; videos and logs stay, or are moved aside."
    ),
    "guide.figures": "Claimed: 27 switches, 1.3B to 14B in 7.2 s",
    "guide.figures_ours": (
        "turbotui bench switch measures the same rows on this host, beside plain diffusers."
    ),
}

"""The page from the WebUI guide, in Chinese."""

from __future__ import annotations

GUIDE = {
    "guide.title": "对照 WebUI 指南：它的按钮和脚本，我们的按键",
    "guide.moral": (
        "它的主旨也是我们的：显存要掌控，不靠侥幸。它的每一步在这里都是一个键，并给出收回多少字节的凭据。"
    ),
    "guide.restart": "按钮“重启应用”",
    "guide.restart_ours": (
        "{hard_cleanup}，turbotui cleanup：几秒换一个新的工作进程，队列、草稿、设置都在。{restart} "
        "重启引擎本身。"
    ),
    "guide.background": "按钮“后台查看”",
    "guide.background_ours": (
        "显存条和面板 3：每个字节都有归属，缓存与权重分开。{log_file} 在此显示 WebUI 自己的日志。"
    ),
    "guide.open": "按钮“打开应用”",
    "guide.open_ours": "turbotui：连到正在运行的引擎，没有才启动；不会出现第二个实例。",
    "guide.soft": "第一步 软卸载：按钮、empty_cache、等 2 秒",
    "guide.soft_ours": (
        "{unload}，turbotui unload：不往 CPU 复制；毫秒内由 NVML 证实收回多少，再装载按总线速度。"
    ),
    "guide.hard": "第二步 硬清理：重启，再 nvidia-smi --gpu-reset",
    "guide.hard_ours": (
        "{hard_cleanup}：结束我们的工作进程，证实字节收回，再装回。{reset} 重置 GPU "
        "是最后手段：列出条件，要输入编号。"
    ),
    "guide.cold": "第三步 冷加载：“Load Model”，等 3 到 5 秒",
    "guide.cold_ours": ("{switch} ↵ 一步切换，先证实卸载再装载；{previous} 切回。可立即按 {add}：队列会等。"),
    "guide.emergency": "占用 95 % 时：另开进程 empty_cache，shared.model.unet = None",
    "guide.emergency_ours": (
        "{free}，turbotui free：作用于真正占用的进程，任务运行中也安全；事先有横幅说明什么可以放掉。"
    ),
    "guide.environment": "PYTORCH_CUDA_ALLOC_CONF、--no-half-vae、--disable-nan-check",
    "guide.environment_ours": (
        'config.toml 中 allocator = "auto" 或 "guide"；status 显示实际生效的。另两项在此无用。'
    ),
    "guide.components": "按组件加载：只要 UNet、不要 VAE、双模型只用于 I2V",
    "guide.components_ours": (
        "自动：每个阶段只留所需；residency（dit_only、keep_text、keep_experts）决定保留什么。"
        "turbotui explain 事先说明。"
    ),
    "guide.baseline": "每日基线检查，pkill -f app.py",
    "guide.baseline_ours": (
        "{findings}，turbotui check：每小时及按键检查，指出进程、属主和 pid。{kill} 按 pid "
        "和启动时间结束其中一个。"
    ),
    "guide.tiers": "分档：16、24、40 GB 各跑什么",
    "guide.tiers_ours": (
        "按这张卡计算：新任务（{add}）边输入边显示峰值和用时，切换（{switch}）显示是否放得下、什么会让位。"
    ),
    "guide.logs": "webui_startup_latest.log：CUDA memory allocated、OOM",
    "guide.logs_ours": (
        "面板 6 记录装载、移出、OOM 及字节；{report} 看昨夜。{log_file} 跟踪这类文件（也可 "
        "GBK）；turbotui leaks --log FILE 给出其中的泄漏和办法。"
    ),
    "guide.last_resort": "最后的脚本：pkill python、重置、rm -rf outputs",
    "guide.last_resort_ours": (
        "{full_cleanup}，turbotui cleanup --all：结束我们的一切和你勾选的，不碰别的 Python；"
        "视频和日志保留，或移到一边。"
    ),
    "guide.figures": "声称：27 种切换，1.3B 到 14B 用 7.2 秒",
    "guide.figures_ours": "turbotui bench switch 在本机测同样的行，并与普通 diffusers 对比。",
}

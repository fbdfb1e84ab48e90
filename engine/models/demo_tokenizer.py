"""The demo models' tokenizer: a byte-level BPE learnt from a page of English and Chinese.

Byte-level, so that no text in any script becomes an unknown token. Learnt on the spot in
milliseconds; nothing is fetched.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
"""Ids 0, 1 and 2, as umT5 has them."""
VOCAB_SIZE = 1024
MAX_LENGTH = 512

CORPUS = """
A cat walks through tall grass at sunset, golden light, slow camera pan, cinematic, highly detailed.
A red panda drinks tea on a wooden balcony while snow falls over the quiet mountains behind it.
Waves break against black rocks under a stormy sky; a lighthouse turns in the distance.
An astronaut rides a horse across a desert of glass, dust rising, wide angle, film grain, 35mm.
A busy street in the rain at night, neon signs reflected in puddles, people with umbrellas, close-up.
The camera follows a paper boat down a narrow stream between mossy stones in the morning mist.
Aerial view of a green valley with a river, clouds moving fast, time lapse, realistic, 4k, sharp focus.
Portrait of an old fisherman smiling, soft window light, shallow depth of field, blue and orange tones.
A small robot waters the plants in a greenhouse, bright, playful, animated, smooth motion.
Two children run along the beach with a kite; the sea is calm and the wind is warm in summer.
A train crosses a bridge in autumn, leaves flying, steam, warm colours, a city skyline far away.
Fireworks above the harbour at midnight, boats, music, crowds, slow motion, dramatic lighting.
一只猫在夕阳下穿过高高的草丛，金色的光线，镜头缓慢平移，电影质感，细节丰富。
一只小熊猫在木制阳台上喝茶，身后的群山静静地下着雪。
海浪拍打着黑色的岩石，暴风雨的天空，远处的灯塔在旋转。
宇航员骑着马穿过玻璃般的沙漠，尘土飞扬，广角镜头，胶片颗粒。
夜晚下雨的繁华街道，霓虹灯倒映在水洼里，人们撑着雨伞，特写。
清晨的薄雾中，镜头跟随一只纸船顺着狭窄的小溪漂流，两边是长满青苔的石头。
绿色山谷和河流的航拍，云朵快速移动，延时摄影，写实，高清，清晰对焦。
一位微笑的老渔夫的肖像，柔和的窗光，浅景深，蓝色和橙色的色调。
小机器人在温室里给植物浇水，明亮，活泼，动画风格，动作流畅。
两个孩子拿着风筝在沙滩上奔跑，大海平静，夏天的风很温暖。
秋天，一列火车驶过大桥，树叶飞舞，蒸汽，暖色调，远处是城市的天际线。
午夜的港口上空绽放烟花，小船，音乐，人群，慢动作，戏剧性的光影。
"""


def make_tokenizer(folder: Path) -> int:
    """Write `tokenizer.json` and its config for AutoTokenizer into `folder`; gives the vocabulary's size."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, EOS, UNK],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS.strip().splitlines(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}",
        pair=f"$A {EOS} $B {EOS}",
        special_tokens=[(EOS, tokenizer.token_to_id(EOS))],
    )
    folder.mkdir(parents=True, exist_ok=True)
    # The library's own `save` leaves the vocabulary in the order of a hash table in some releases.
    text = json.loads(tokenizer.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(text, ensure_ascii=False, sort_keys=True), "utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": EOS,
        "unk_token": UNK,
        "model_max_length": MAX_LENGTH,
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, sort_keys=True), "utf-8")
    return int(tokenizer.get_vocab_size())

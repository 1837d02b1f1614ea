"""The words that the embedded model knows: those of captions, of every prompt of the product, and common English."""

from __future__ import annotations

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<unk>",
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
PUNCTUATION = "\n.,:;!?'\"()[]{}<>/|-_+=*#%&@~^$`\\"

_CHAT = "system user assistant you are a helpful"
_SCENES = """
large small red blue yellow purple green orange cyan pink circle square triangle cross above below left right of
white grey gray sand mist slate black brown
"""
_PROMPTS = """
given images image indexed index from to identify the that which best matches match matching the provided caption captions
respond response with number numbers only and nothing else answer answers shuffled shuffle randomly random order ordered
judge each fairly fair ignore ignoring position positions bias biased unbiased carefully care careful consider considered
think thinking step by steps in tags tag then give giving gives options option choose chosen choice choices candidate
candidates correct correctly true false letter letters label labels letters describe describes described description
descriptions picture pictures photo photos following question questions directly like select selected pick reason reasoning
compare compared comparing between every all any some independent independently based content contents visual text word words
explain explanation explanations first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty thirty thirtieth forty fortieth fifty
fiftieth one two three four five six seven eight nine ten eleven twelve let us your you please do not don should must may
might can could will would shall equal equally likely prior knowledge before after final finally output format exactly single
other others another same different difference differences similar most least more less than no none both
"""
_ENGLISH = """
about across add again against ago air also always am among an animal animals apple apples around as at away baby back
background bag ball banana bananas bat beach bear bears because bed bedroom been bench beside big bike bird birds boat boats
book books bottle bottles bowl bowls box boy boys bread bright broccoli brushing building buildings bus busy but cabinet cake
cakes camera car carrying cars cart cat cats cell chair chairs child children chocolate city clock clocks close clothes cloud
clouds coat coffee cold colorful colors color colour colours computer computers control cooking corner couch couple court
covered cow cows crowd cup cups cut cutting dark day desk did dining dirt dish dishes dog dogs donut donuts door down dress
dressed drink drinking driving each eat eating elephant elephants end even ever face family fence few field fire flag floor
flower flowers fly flying food for fork frisbee front fruit full game get getting giraffe giraffes girl girls glass glasses
go going good grass grassy green group had hair hand hands hanging has hat have he head her here herd high hill him his hold
holding home horse horses hot house how hydrant i if inside into is it its jacket jumping just keyboard kid kids kitchen kite
kites knife lady lake laptop large laying leaning light lights line little long look looking lot lots luggage lunch made
make making man many market me meal men metal microwave middle mirror mountain mountains mouse mouth much my near new next
night now object objects ocean off office old on onto open oranges our out outside oven over overhead park parked parking
people person phone piece pieces pizza plane plant plants plate plates play player players playing pole posing racket rain
ramp reading ready red refrigerator remote restaurant ride rider riding river road rock rocks room row running sandwich say
says scene sea seat seen sheep shelf ship shirt shown shows shape shapes show side sidewalk sign signs sink sit sits sitting
size skate skateboard skateboarder skater ski skier skiing skis sky slice slope snow snowboard snowboarder snowy so soccer
sofa something stand standing stands station stop stove street suit suitcase surf surfboard surfer surfing swinging table
tables taken taking talking tall team teddy television tennis that their them there they thing things this through tie
time tie tile to together toilet tow toward towel tower town toy toys track traffic train trains travel tree trees trick truck
trucks try trying tv umbrella umbrellas under up use used using van vase vegetable vegetables very view walk walking wall
was watch watching water wave waves way we wearing well were wet what wheel when where while who wide wild wii wine window
windows wine winter with woman women wood wooden work working yard young zebra zebras zoo
"""
_LOWER = "abcdefghijklmnopqrstuvwxyz"


def words() -> tuple[str, ...]:
    """Lower-case words, sorted, each once."""
    return tuple(sorted(set(f"{_CHAT} {_SCENES} {_PROMPTS} {_ENGLISH}".split())))


def vocabulary() -> dict[str, int]:
    """Token to id. Single signs also exist as continuations ("##s"), so that any ASCII word can be spelled.

    A number is one digit and continuations: "10" is "1", "##0".
    """
    signs = [*"0123456789", *_LOWER, *_LOWER.upper()]
    known = [w for w in words() if len(w) > 1]
    tokens = [*SPECIAL, *TAGS, *PUNCTUATION, *signs, *(f"##{s}" for s in signs), *known, *(w.capitalize() for w in known)]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}

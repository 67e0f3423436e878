//! The Chinese stories: one table per slot. [`super::grammar`] says how to read the templates.

mod plots;

use super::grammar::{Cast, Grammar, Place, Quirk};
use plots::{GOALS, TROUBLES};

pub(super) static CHINESE: Grammar = Grammar {
    casts: CASTS,
    they: "他们",
    helpers: &["阿福", "墨墨", "米米"],
    places: PLACES,
    goals: GOALS,
    troubles: TROUBLES,
    quirks: QUIRKS,
    plans: PLANS,
    endings: ENDINGS,
    tables: &[
        ("opening", OPENING),
        ("trait", TRAIT),
        ("f_trait", F_TRAIT),
        ("friend_too", FRIEND_TOO),
        ("comical_friend", COMICAL_FRIEND),
        ("day", DAY),
        ("wish", WISH),
        ("yes", YES),
        ("worry", WORRY),
        ("idea", IDEA),
        ("luck", LUCK),
        ("joy", JOY),
        ("old", OLD),
        ("far", FAR),
    ],
    introduced_after: &["名叫", "名字叫", "叫他", "叫她", "叫它", "他叫", "她叫", "它叫"],
    introduced_before: &["是一"],
    quotes: ("“", "”"),
};

const ANIMALS: &[(&str, &str)] = &[
    ("一只", "小兔子"),
    ("一只", "小狐狸"),
    ("一只", "小熊"),
    ("一只", "小猫"),
    ("一只", "小狗"),
    ("一只", "小松鼠"),
    ("一只", "小刺猬"),
    ("一只", "小青蛙"),
    ("一只", "小老鼠"),
    ("一只", "小鸭子"),
    ("一只", "小羊"),
    ("一头", "小猪"),
];

const CASTS: &[Cast] = &[
    Cast {
        heroes: &[("小雨", ("一个", "小女孩"))],
        friends: &["朵朵", "萌萌"],
        kinds: &[("一个", "小女孩"), ("一个", "小姑娘")],
        he: "她",
        him: "她",
        his: "她的",
        they: "她们",
    },
    Cast {
        heroes: &[("阿明", ("一个", "小男孩"))],
        friends: &["小海", "阿杰"],
        kinds: &[("一个", "小男孩")],
        he: "他",
        him: "他",
        his: "他的",
        they: "他们",
    },
    Cast {
        heroes: &[
            ("豆豆", ("一只", "小兔子")),
            ("毛毛", ("一只", "小熊")),
            ("皮皮", ("一只", "小猴子")),
            ("安安", ("一只", "小猫")),
            ("乐乐", ("一只", "小狗")),
        ],
        friends: &["球球", "奇奇", "糖糖"],
        kinds: ANIMALS,
        he: "它",
        him: "它",
        his: "它的",
        they: "它们",
    },
    Cast {
        heroes: &[("铁铁", ("一个", "小机器人"))],
        friends: &["方方"],
        kinds: &[("一个", "小机器人")],
        he: "它",
        him: "它",
        his: "它的",
        they: "它们",
    },
];

const PLACES: &[Place] = &[
    Place {
        at: "小河边", scenery: &["河水[一天到晚|从早到晚]哗啦啦地唱着歌。", "小鱼常常跳出水面晒太阳。"]
    },
    Place {
        at: "森林里", scenery: &["那里的大树高得能挠到云的痒痒。", "空气里有[蘑菇|青草]的香味。"]
    },
    Place {
        at: "山坡上",
        scenery: &["站在那里，能看见山下[七|九]个红屋顶。", "风最喜欢从草地上打着滚儿跑下去。"],
    },
    Place {
        at: "大海边", scenery: &["每天早上，海浪都会送来一个新贝壳。", "海风吹在脸上，有一点儿咸。"]
    },
    Place {
        at: "小村子里", scenery: &["村口的大钟总是慢[两|五]分钟。", "村里每一扇门的颜色都不一样。"]
    },
    Place {
        at: "农场里", scenery: &["那里的公鸡起得最早，嗓门也最大。", "草堆又软又香，跳上去真舒服。"]
    },
    Place {
        at: "湖边", scenery: &["傍晚的湖面像一面大镜子。", "湖边的芦苇一见风就点头。"]
    },
    Place {
        at: "草原上", scenery: &["那里的[野花|蝴蝶]多得数也数不清。", "青草又高又软，像一张大床。"]
    },
    Place {
        at: "雪山下", scenery: &["到了春天，那里还有一点儿雪。", "雪山早上总爱戴一顶白云帽子。"]
    },
    Place {
        at: "老磨坊旁边", scenery: &["大风车转呀转，从来不头晕。", "空气里总有一股面包的香味。"]
    },
    Place {
        at: "小岛上", scenery: &["早饭前就能绕着小岛走一圈。", "海鸥每天早上都来报告新闻。"]
    },
    Place {
        at: "果园里", scenery: &["秋天一到，[苹果|梨子]把树枝都压弯了。", "蜜蜂在花丛里嗡嗡地忙着。"]
    },
    Place {
        at: "竹林里", scenery: &["风一吹，竹叶就沙沙地说悄悄话。", "下过雨，竹笋就比赛谁长得快。"]
    },
    Place {
        at: "小镇旁边", scenery: &["镇上最后一盏路灯就在门口。", "房子后面是一大片[麦田|菜地]。"]
    },
];

const QUIRKS: &[Quirk] = &[
    Quirk { is: "总是喊肚子饿", payoff: "{friend}问：“现在可以吃午饭了吗？”" },
    Quirk { is: "特别爱唱歌", payoff: "{friend}编了一首[新歌|好玩的歌]，唱了一整天。" },
    Quirk {
        is: "最会讲笑话", payoff: "{friend}讲了一个关于[土豆|鞋子|勺子]的笑话，{hero}笑得肚子都疼了。"
    },
    Quirk {
        is: "喜欢收集纽扣", payoff: "{friend}在地上捡到一颗[绿|金|小]纽扣，得意极了。"
    },
    Quirk {
        is: "总戴着一顶大草帽", payoff: "一阵风吹来，{friend}的大草帽飞到了{hero}的头上。"
    },
    Quirk {
        is: "见到什么都要数一数",
        payoff: "{friend}数了数天上的云，说：“一共[七|九|十]朵，真是个好日子！”",
    },
    Quirk {
        is: "走到哪儿都能睡着", payoff: "{friend}打了一个小盹，醒来的时候还在笑。"
    },
    Quirk {
        is: "一天能问一百个为什么",
        payoff: "{friend}问：“天为什么[这么高|这么蓝|这么大]？”{hero}听了直笑。",
    },
    Quirk { is: "一刻也坐不住", payoff: "{friend}高兴得一下子跳进了[水坑|树叶堆]里。" },
    Quirk {
        is: "总带着一把小花伞", payoff: "一个苹果从树上掉下来，在{friend}的小花伞上弹了一下。"
    },
    Quirk {
        is: "打喷嚏特别响", payoff: "{friend}打了一个大喷嚏，震下来[一片树叶|一顶帽子|一颗松果]。"
    },
    Quirk {
        is: "有一点儿爱臭美", payoff: "{friend}对着水坑照了照，说：“我真像个英雄！”"
    },
];

const PLANS: &[&str] = &[
    "{opening}{comical_friend}\n\n{why}{wish}{trouble}{fix}\n\n{win}{payoff}{ending}",
    "{opening}{scenery}{friend_too}\n\n{why}{wish}{trouble}{fix}\n\n{win}{ending}",
    "{opening}{friend_too}{why}{wish}\n\n{trouble}{worry}{fix}\n\n{win}{ending}",
    "{opening}{comical_friend}{why}{wish}\n\n{trouble}{fix}\n\n{win}[{payoff}|]{ending}",
    "{opening}{friend_too}{why}{wish}\n\n{trouble}{fix}{win}{joy}{ending}",
    "{opening}{friend_too}\n\n{why}{wish}{trouble}[{worry}|]{fix}\n\n{win}{ending}",
];

const OPENING: &[&str] = &[
    "从前，{place}住着{one}{trait}{kind}，名叫{hero}。",
    "{hero}是{one}{trait}{kind}，住在{place}。",
    "{place}有{one}{trait}{kind}，大家都叫{he}{hero}。",
    "很久很久以前，{place}住着{one}{trait}{kind}，{he}叫{hero}。",
    "在{place}的一座[红|白|木头]房子里，住着{one}{trait}{kind}，名叫{hero}。",
    "{place}住着{one}{trait}{kind}，名字叫{hero}，[最爱笑|最爱听故事|最爱动脑筋]。",
];

const TRAIT: &[&str] =
    &["可爱的", "勇敢的", "害羞的", "善良的", "好奇的", "聪明的", "调皮的", "快乐的", "细心的", "热心的"];

const F_TRAIT: &[&str] = &["活泼的", "爱笑的", "安静的", "机灵的", "爱说话的", "好心的"];

const FRIEND_TOO: &[&str] = &[
    "{hero}有一个好朋友，名叫{friend}，是{f_one}{f_kind}。",
    "{hero}的邻居是{f_one}{f_trait}{f_kind}，名叫{friend}。",
    "{hero}天天和{f_one}{f_kind}一起玩，{f_he}叫{friend}。",
    "隔壁住着{f_one}{f_trait}{f_kind}，名叫{friend}。",
    "{hero}最好的朋友是{f_one}{f_kind}，{f_he}叫{friend}。",
];

const COMICAL_FRIEND: &[&str] = &[
    "{hero}有一个好朋友，名叫{friend}，是{f_one}{f_kind}，{quirk}。",
    "{hero}的邻居是{f_one}{f_kind}，名叫{friend}，{quirk}。",
    "{hero}天天和{f_one}{f_kind}一起玩，{f_he}叫{friend}，{quirk}。",
    "隔壁住着{f_one}{f_kind}，名叫{friend}，{quirk}。",
    "{hero}最好的朋友是{f_one}{f_kind}，{f_he}叫{friend}，{quirk}。",
];

const DAY: &[&str] = &[
    "一天早上",
    "一个晴朗的早晨",
    "有一天",
    "一个刮风的日子",
    "一天下午",
    "这天吃过早饭",
    "一个暖洋洋的日子",
];

const WISH: &[&str] = &[
    "{day}，{hero}决定{goal}。[{friend}也跟着一起来了。|]",
    "{day}，{hero}对{friend}说：“我想{goal}。”[{yes}|]",
    "{day}，{hero}问{friend}：“你能陪我{goal}吗？”[{yes}|]",
    "{day}，{hero}大声说：“今天我一定要{goal}！”",
    "{day}，{hero}想来想去，终于下了决心，要{goal}。[“我来帮你！”{friend}说。|]",
];

const YES: &[&str] = &[
    "{friend}说：“当然好啦！”",
    "“我来帮你！”{friend}说。",
    "{friend}马上点点头。",
    "“走，我们现在就开始！”{friend}说。",
    "{friend}说：“好呀，不过先让我吃完早饭。”",
];

const WORRY: &[&str] = &[
    "“糟糕！”{hero}说，“这可怎么办呢？”",
    "“哎呀！”{friend}叫了起来。",
    "{hero}急得[直跺脚|团团转|快要哭了]。{friend}说：“别着急，总会有办法的。”",
    "{hero}叹了一口气，坐在石头上。",
    "{hero}说：“这下永远也做不成了。”{friend}说：“永远可是很久很久呢。”",
    "{hero}差点儿哭了，{friend}抱了抱{him}。",
];

const IDEA: &[&str] = &[
    "{friend}眼珠一转，有了主意。",
    "“我有办法了！”{friend}说。",
    "{friend}想呀想，忽然一拍脑袋：“有了！”",
    "{friend}看了看四周，笑着说：“看我的！”",
];

const LUCK: &[&str] = &["就在这时，", "幸好，", "忽然，", "“要帮忙吗？”有个声音问。"];

const OLD: &[&str] = &["山羊爷爷", "乌龟爷爷", "老熊伯伯", "兔奶奶", "绵羊奶奶", "刺猬大婶"];
const FAR: &[&str] = &["山那边", "大路的尽头", "很远的地方", "树林的另一头"];

const JOY: &[&str] = &[
    "{hero}高兴得[跳了起来|转了三个圈|直拍手]。",
    "“太好了！”{hero}喊。“太好了！”{friend}也喊。",
    "{hero}说：“谢谢你，{friend}。”",
    "{hero}紧紧地抱住了{friend}。",
    "{hero}和{friend}笑呀笑，连[太阳|小鸟]也跟着笑了。",
];

const ENDINGS: &[&str] = &[
    "{hero}和{friend}永远也忘不了{done}的这一天。",
    "这就是{hero}和{friend}{done}的故事。",
    "那天晚上，{hero}带着微笑睡着了，还梦见了{thing}呢。",
    "从那天起，{hero}和{friend}成了{place}最要好的朋友。",
    "后来，{hero}一想起{thing}，就会想起{friend}，心里暖暖的。",
    "{hero}和{friend}手拉着手，高高兴兴地回家了。",
    "{hero}说：“今天真开心！”{friend}说：“明天我们再来一次！”",
    "{hero}对{friend}说：“有你在，什么事都不难。”",
    "直到今天，{hero}和{friend}说起{thing}，还会笑个不停。",
    "{hero}明白了，有{friend}这样的好朋友，再难的事也有办法。",
];

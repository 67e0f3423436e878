//! What happens in the Chinese stories: goals, troubles that fit them, ways out that fit the troubles.

use crate::corpus::grammar::{Family, Goal, Trouble};
use Family::{Bring, Find, Learn, Make, See};

pub(super) const GOALS: &[Goal] = &[
    Goal {
        family: Find,
        want: "找回红皮球",
        done: "找回红皮球",
        thing: "红皮球",
        some: "",
        why: &["{hero}的红皮球不见了，玩什么都没意思。", "{hero}一不小心，红皮球就滚得没影了。"],
        win: &["红皮球又在地上蹦蹦跳跳了。", "{hero}把红皮球踢过去，{friend}又把它踢回来。"],
    },
    Goal {
        family: Find,
        want: "找回银钥匙",
        done: "找回银钥匙",
        thing: "银钥匙",
        some: "",
        why: &["银钥匙丢了，音乐盒再也打不开了。", "{hero}不知道把银钥匙掉在了哪里。"],
        win: &["银钥匙轻轻一转，音乐盒就唱起歌来。", "{hero}给银钥匙系上一根红绳子，这下再也不会丢了。"],
    },
    Goal {
        family: Find,
        want: "找回黄风筝",
        done: "找回黄风筝",
        thing: "黄风筝",
        some: "",
        why: &["一阵大风把{hero}的黄风筝吹跑了。", "{hero}手一松，黄风筝就飞走了。"],
        win: &["不一会儿，黄风筝又在天上跳舞了。", "黄风筝破了一个小洞，可是飞得还是那么高。"],
    },
    Goal {
        family: Find,
        want: "找回蓝帽子",
        done: "找回蓝帽子",
        thing: "蓝帽子",
        some: "",
        why: &["{hero}最喜欢的蓝帽子不见了。", "调皮的风偷走了{hero}的蓝帽子。"],
        win: &[
            "{hero}戴上蓝帽子，虽然有点儿[脏|湿]，可还是正合适。",
            "蓝帽子里坐着一只[小瓢虫|小蜗牛]，好像很满意。",
        ],
    },
    Goal {
        family: Find,
        want: "找回小木船",
        done: "找回小木船",
        thing: "小木船",
        some: "",
        why: &["一场暴风雨过后，{hero}的小木船不见了。", "{hero}到处都找不到小木船。"],
        win: &["小木船漂在水坑里，神气得像一艘大轮船。", "{hero}把小木船擦干，还给它换了一面新帆。"],
    },
    Goal {
        family: Make,
        want: "做一个苹果蛋糕",
        done: "一起做苹果蛋糕",
        thing: "苹果蛋糕",
        some: "糖",
        why: &["苹果熟了，又红又甜。", "{friend}的生日快到了。"],
        win: &["苹果蛋糕出炉了，金黄金黄的，香极了。", "苹果蛋糕有点儿歪，可是味道好极了。"],
    },
    Goal {
        family: Make,
        want: "做一个秋千",
        done: "一起做秋千",
        thing: "秋千",
        some: "绳子",
        why: &["门前的老橡树看上去有点儿孤单。", "{hero}很想知道飞起来是什么感觉。"],
        win: &["秋千荡得高高的，大家轮流坐。", "坐在秋千上，{hero}的脚尖都快碰到[树叶|白云]了。"],
    },
    Goal {
        family: Make,
        want: "做一个纸灯笼",
        done: "一起做纸灯笼",
        thing: "纸灯笼",
        some: "红纸",
        why: &["冬天的夜晚又长又黑。", "灯笼节快到了，{hero}还没有灯笼呢。"],
        win: &["纸灯笼亮起来，像一个小月亮。", "纸灯笼一亮，连[飞蛾|星星]都跑来看。"],
    },
    Goal {
        family: Make,
        want: "给小鸟搭一个家",
        done: "一起给小鸟搭家",
        thing: "小鸟的家",
        some: "钉子",
        why: &["冬天要来了，小鸟还没有家。", "每天早上都有小鸟在窗前唱歌，{hero}想谢谢它们。"],
        win: &["天还没黑，就有[两|三]只小鸟搬进了新家。", "小鸟的家有圆圆的门和尖尖的红屋顶，漂亮极了。"],
    },
    Goal {
        family: Make,
        want: "煮一大锅汤",
        done: "一起煮汤",
        thing: "那锅热汤",
        some: "胡萝卜",
        why: &["天气真冷，大家的肚子都咕咕叫。", "{hero}做了一晚上喝汤的梦。"],
        win: &["汤热乎乎的，每个人都喝了[两|三]大碗。", "大家把汤喝得一滴不剩，肚子都圆了。"],
    },
    Goal {
        family: Bring,
        want: "给{elder}送一罐蜂蜜",
        done: "给{elder}送蜂蜜",
        thing: "那罐蜂蜜",
        some: "",
        why: &[
            "{far}住着一位{old}，名叫{elder}，最爱吃蜂蜜。",
            "{far}住着一位{old}，名叫{elder}，这几天嗓子疼。",
        ],
        win: &[
            "{elder}尝了一口蜂蜜，笑着说：“真甜，不过没有你们甜。”",
            "“是蜂蜜！”{elder}说着，把勺子舔了[两|三]遍。",
        ],
    },
    Goal {
        family: Bring,
        want: "给{elder}送一篮梨子",
        done: "给{elder}送梨子",
        thing: "那篮梨子",
        some: "",
        why: &[
            "{far}住着一位{old}，名叫{elder}，家里没有果树。",
            "{far}住着一位{old}，名叫{elder}，快要过生日了。",
        ],
        win: &[
            "{elder}咬了一口梨子，香甜的汁水流了一下巴。",
            "“我要做梨子糖，”{elder}说，“第一[块|颗]就给你们。”",
        ],
    },
    Goal {
        family: Bring,
        want: "给{elder}送一封信",
        done: "给{elder}送信",
        thing: "那封信",
        some: "",
        why: &[
            "{far}住着一位{old}，名叫{elder}，邮递员总是找不到路。",
            "{far}住着一位{old}，名叫{elder}，从来没有收到过信。",
        ],
        win: &[
            "{elder}把信读了[两|三]遍，高兴得合不拢嘴。",
            "信上写着：“大家都爱你。”{elder}笑着笑着就哭了。",
        ],
    },
    Goal {
        family: Bring,
        want: "给{elder}送一条围巾",
        done: "给{elder}送围巾",
        thing: "那条围巾",
        some: "",
        why: &[
            "{far}住着一位{old}，名叫{elder}，总是怕冷。",
            "快下雪了，{far}有一位{old}，名叫{elder}，还没有围巾。",
        ],
        win: &["围巾真长，在{elder}的脖子上绕了[四|五]圈。", "“冬天来吧，我不怕！”{elder}围上围巾说。"],
    },
    Goal {
        family: Bring,
        want: "给{elder}送一束鲜花",
        done: "给{elder}送鲜花",
        thing: "那束鲜花",
        some: "",
        why: &[
            "{far}住着一位{old}，名叫{elder}，走不动路了。",
            "{far}住着一位{old}，名叫{elder}，常常觉得孤单。",
        ],
        win: &[
            "{elder}闻了闻鲜花，打了一个大喷嚏，大家都笑了。",
            "鲜花一插好，{elder}的屋子里就像春天一样。",
        ],
    },
    Goal {
        family: See,
        want: "去看大月亮",
        done: "一起看大月亮",
        thing: "大月亮",
        some: "",
        why: &["听说中秋节的月亮特别大。", "{hero}还从来没有在山顶上看过月亮。"],
        win: &["月亮升起来了，又大又圆，谁也不说话了。", "月亮慢吞吞地爬上来，好像有点儿害羞。"],
    },
    Goal {
        family: See,
        want: "去看流星",
        done: "一起看流星",
        thing: "流星",
        some: "",
        why: &["听说夏天的晚上，在山顶上能看见流星。", "{hero}想对着流星许一个愿。"],
        win: &[
            "一颗流星，十颗流星，后来数也数不过来了。",
            "{hero}看见第一颗流星，赶紧许了一个[大大的|秘密的]愿望。",
        ],
    },
    Goal {
        family: See,
        want: "去看萤火虫跳舞",
        done: "一起看萤火虫",
        thing: "萤火虫",
        some: "",
        why: &["每年夏天，萤火虫都会在山顶上跳舞。", "{hero}只在书里见过萤火虫。"],
        win: &[
            "上百只萤火虫一起跳舞，有一只还落在{hero}的鼻子上。",
            "萤火虫一闪一闪的，像[会飞的小灯|会飞的星星]。",
        ],
    },
    Goal {
        family: See,
        want: "去看大雁",
        done: "一起看大雁",
        thing: "大雁",
        some: "",
        why: &["秋天到了，大雁要从山顶上飞过。", "大雁要飞到南方去了，{hero}想跟它们说再见。"],
        win: &[
            "大雁排成一行飞过来，最后一只还[差点儿迟到了|挥了挥翅膀]。",
            "“嘎！”大雁叫道。“嘎！”{hero}也跟着叫。",
        ],
    },
    Goal {
        family: Learn,
        want: "学游泳",
        done: "学会游泳",
        thing: "游泳",
        some: "",
        why: &["大家都会游泳，只有{hero}不会。", "{hero}一直想像小鱼一样游来游去。"],
        win: &[
            "{hero}一口气游到了对岸，[水花|笑声]飞得老高。",
            "{hero}先是游得像石头，后来像树叶，最后像一条小鱼。",
        ],
    },
    Goal {
        family: Learn,
        want: "学骑自行车",
        done: "学会骑自行车",
        thing: "自行车",
        some: "",
        why: &["院子里有一辆绿色的自行车，看上去很无聊。", "大家都会骑自行车，只有{hero}不会。"],
        win: &["{hero}骑了一个小圈，又骑了一个大圈。", "自行车稳稳地向前跑，{hero}把铃铛按了[十|二十]下。"],
    },
    Goal {
        family: Learn,
        want: "学吹口哨",
        done: "学会吹口哨",
        thing: "吹口哨",
        some: "",
        why: &["大家都会吹口哨，只有{hero}不会。", "窗外有只小鸟吹口哨，{hero}也想回答它。"],
        win: &["{hero}的口哨吹得真好听，连小鸟都来跟着唱。", "口哨声虽然小小的，可那是{hero}自己吹出来的。"],
    },
    Goal {
        family: Learn,
        want: "学跳舞",
        done: "学会跳舞",
        thing: "跳舞",
        some: "",
        why: &["星期天有一场晚会，人人都要跳舞。", "大家都会跳舞，只有{hero}不会。"],
        win: &["{hero}跳呀跳，只碰倒了一[把椅子|个花盆]。", "{hero}向左转，向右转，又绕着{friend}转了一圈。"],
    },
];

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble {
        families: &[Find],
        what: &[
            "找来找去，{friend}抬头一看，{thing}挂在一棵大树的树顶上！",
            "可是{thing}挂在高高的大树上，怎么也够不着。",
        ],
        fixes: &[
            "{idea}{they}一起摇大树，一、二、三，{thing}“[扑通|啪]”一声掉了下来。",
            "{idea}{friend}骑在{hero}的肩膀上，用长竹竿一捅，{thing}正好掉在{hero}的头上。",
            "{luck}一只猴子跑过来，它叫{helper}。{helper}爬上树，把{thing}扔了下来，还喊：“接住！”",
        ],
    },
    Trouble {
        families: &[Find],
        what: &[
            "可是{thing}落在池塘中间的一片荷叶上，水又深又凉。",
            "找来找去，原来{thing}在池塘中间的一片荷叶上。",
        ],
        fixes: &[
            "{idea}{friend}朝荷叶后面扔小石子，水波把{thing}慢慢推到了岸边。",
            "{idea}{friend}用一根长树枝把荷叶一点儿一点儿拉过来，{hero}伸手拿到了{thing}。",
            "{luck}一只乌龟游过来，它叫{helper}。{helper}把{thing}驮在背上，慢慢地送了回来。",
        ],
    },
    Trouble {
        families: &[Find],
        what: &["可是{thing}掉进了一个又深又黑的洞里。", "找来找去，原来{thing}掉进了一个深深的洞里。"],
        fixes: &[
            "{idea}{friend}在长绳子上绑了一个钩子，把{thing}从洞里钓了上来。",
            "{idea}{friend}拉住{hero}的脚，{hero}伸手一够，就抓住了{thing}。",
            "{luck}一只鼹鼠钻了出来，它叫{helper}。{helper}挖了一条小地道，把{thing}推了出来，说：“地下快递到了！”",
        ],
    },
    Trouble {
        families: &[Find],
        what: &["可是{thing}卡在一丛带刺的灌木里。", "找来找去，原来{thing}在一丛带刺的灌木里。"],
        fixes: &[
            "{idea}{friend}戴上厚厚的手套，小心地把{thing}拿了出来。",
            "{idea}{friend}用两根长棍子当筷子，把{thing}夹了出来。",
            "{luck}一只山羊走过来，它叫{helper}。{helper}张开嘴，把灌木吃出了一条路，还说：“[有点儿辣|真好吃]！”",
        ],
    },
    Trouble {
        families: &[Find],
        what: &[
            "可是一头大奶牛正趴在{thing}上睡觉，它叫{helper}。",
            "找来找去，原来{thing}被一头大奶牛压住了，它叫{helper}，睡得正香。",
        ],
        fixes: &[
            "{idea}{friend}用羽毛挠了挠{helper}的鼻子。“阿嚏！”{helper}翻了一个身，{thing}露了出来。",
            "{idea}{friend}小声说：“开饭啦！”{helper}一下子就跳了起来。",
            "{idea}{friend}在草地上放了一个苹果。{helper}闻到香味，站起来走了，{thing}就露了出来。",
        ],
    },
    Trouble {
        families: &[Make],
        what: &["可是刚要动手，才发现家里没有{some}了。", "找遍了所有的柜子，就是没有{some}。"],
        fixes: &[
            "{idea}{friend}跑到集市上，用[一个漂亮的贝壳|一首好笑的诗|一颗红纽扣]换来了{some}。",
            "{idea}{they}往床底下一看，{friend}在一只旧鞋子后面找到了{some}。",
            "{luck}一只大白鹅推着小车走过来，它叫{helper}，车上装满了{some}。{helper}说：“多拿点儿，我正愁用不完呢！”",
        ],
    },
    Trouble {
        families: &[Make],
        what: &[
            "可是装材料的箱子太重了，怎么搬也搬不动。",
            "{they}把材料装进一个大箱子，可是箱子太重了，一动也不动。",
        ],
        fixes: &[
            "{idea}{friend}在箱子下面垫上几根圆木棍，箱子就骨碌骨碌地滚起来了。",
            "{idea}{friend}打开箱子，一样一样往外拿，这下轻松多了。",
            "{luck}一匹大马走过来，它叫{helper}。{helper}拉起箱子就走，说：“轻得像羽毛！”",
        ],
    },
    Trouble {
        families: &[Make],
        what: &["可是刚要动手，乌云来了，雨下个不停。", "可是忽然下起了大雨，东西都要淋湿了。"],
        fixes: &[
            "{idea}{friend}找来一片像[桌子|门板]一样大的叶子，{they}躲在下面接着干，一点儿也没淋着。",
            "{idea}{they}把东西搬进谷仓，{friend}用[一块大布|一扇旧门]搭了一个屋顶。",
            "{luck}一只天鹅飞过来，它叫{helper}。{helper}张开雪白的大翅膀，像一把大伞，谁也没淋着。",
        ],
    },
    Trouble {
        families: &[Make],
        what: &["可是谁也不知道该怎么做。", "可是这比想的难多了，第一次做坏了。"],
        fixes: &[
            "{idea}{friend}在沙地上画了一张图，{they}一看就明白了。",
            "{idea}这样试试，那样试试，试到第三次，终于做对了。",
            "{luck}一只猫头鹰飞过来，它叫{helper}。{helper}一步一步地教，大家一步一步地学。",
        ],
    },
    Trouble {
        families: &[Make],
        what: &["可是工具箱的盖子卡住了，怎么也打不开。", "{they}搬来了工具箱，可是盖子关得紧紧的。"],
        fixes: &[
            "{idea}{friend}在盖子边上抹了一点儿黄油。“啪！”盖子打开了。",
            "{idea}{hero}拉这边，{friend}拉那边。“啪！”盖子开了，{hero}和{friend}都摔了个屁股蹲儿。",
            "{luck}一只啄木鸟飞过来，它叫{helper}。{helper}“笃笃笃”敲了[三|四]下，盖子就弹开了。",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &[
            "可是走到半路，有一条宽宽的小溪，桥被水冲走了。",
            "走着走着，前面出现了一条小溪，可是没有桥。",
        ],
        fixes: &[
            "{idea}{they}把一根圆木推到小溪上，[一步一步|像小猫一样轻轻地]走了过去。",
            "{idea}{friend}带头，踩着一块一块的石头跳过小溪，只湿了一只[脚|袜子]。",
            "{luck}一只河狸划着小船过来了，它叫{helper}。{helper}喊：“开船啦！”就把大家送过了小溪。",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &[
            "可是走到半路，起了大雾，路也看不见了。",
            "走着走着，雾越来越浓，像[牛奶|米汤]一样，大家迷路了。",
        ],
        fixes: &[
            "{idea}{they}静静地听，远处有钟声，跟着钟声就走出了大雾。",
            "{idea}{friend}摸着路边的石墙往前走，{they}跟在后面，走出了大雾。",
            "{luck}一只蜗牛爬过来，它叫{helper}，认得路上的每一块石头。{helper}带着大家慢慢地走出了大雾。",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &[
            "可是路上要穿过一片树林，里面黑得像[锅底|夜里]一样。",
            "走着走着，进了一片黑黑的树林，到处都是奇怪的声音。",
        ],
        fixes: &[
            "{idea}{they}放开嗓子唱歌，唱着唱着，树林就不可怕了。",
            "{idea}{friend}点亮一盏小灯，原来树林里的怪声音只是[两根老树枝|一只打呼噜的癞蛤蟆]。",
            "{luck}一只小甲虫提着灯笼飞过来，它叫{helper}。{helper}在前面照路，把大家带出了树林。",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &[
            "可是走到半路，一扇大铁门挡在前面，怎么也推不开。",
            "走着走着，前面有一扇大铁门，可是谁也没有钥匙。",
        ],
        fixes: &[
            "{idea}刚才一直在推，这次{friend}轻轻一拉，门开了，原来根本没有锁！",
            "{idea}{friend}发现门底下有一个洞，{they}一个跟着一个钻了过去。",
            "{luck}一只小田鼠跑过来，它叫{helper}。{helper}从门缝钻进去，打开门说：“[欢迎光临|各位请进]！”",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &["可是走到半路，一棵大树倒在路中间。", "走着走着，一棵倒下的大树挡住了路，高得爬不上去。"],
        fixes: &[
            "{idea}{friend}发现树干下面有一条缝，{they}趴在地上，像小虫子一样爬了过去。",
            "{idea}{friend}踩着{hero}的肩膀爬上树干，再把{hero}拉了上去。",
            "{luck}一头大象走过来，它叫{helper}。{helper}用长鼻子一卷，就把大树搬开了，说：“正好做早操！”",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &[
            "可是走到半路，一只大公鹅挡在桥上，它叫{helper}，谁也不让过。",
            "走着走着，前面来了一只气呼呼的大公鹅，它叫{helper}，谁也不让过。",
        ],
        fixes: &[
            "{idea}{friend}讲了一个关于两只袜子的笑话，{helper}笑得直不起腰，就让开了路。",
            "{idea}{friend}鞠了一个躬，说：“请让一让，好吗？”{helper}说：“从来没人对我说过请字。”就让开了路。",
            "{idea}{friend}摘了一朵小花送给{helper}，{helper}脸都红了，就让开了路。",
        ],
    },
    Trouble {
        families: &[Learn],
        what: &["可是真要开始的时候，{hero}害怕了，腿直发抖。", "可是{hero}心里害怕，胸口咚咚地跳。"],
        fixes: &[
            "{idea}{friend}站在旁边数一、二、三。数到三，{hero}试了一下，原来没那么可怕。",
            "{idea}{friend}先来，故意摔了一跤，还做了个鬼脸。{hero}笑了，一点儿也不怕了。",
            "{luck}一只猫头鹰飞过来，它叫{helper}。{helper}说：“勇敢就是腿在发抖，也愿意试一试。”{hero}就试了一试。",
        ],
    },
    Trouble {
        families: &[Learn],
        what: &[
            "可是不是一次，也不是两次，{hero}失败了[五|六|七]次。",
            "{hero}早上练，中午也练，可是每次都不成。",
        ],
        fixes: &[
            "{idea}先吃一个梨，深深地吸一口气，{hero}慢慢地又试了一次。",
            "{idea}{friend}一次只教一小步，一步又一步，{hero}慢慢都学会了。",
            "{luck}一只老青蛙跳过来，它叫{helper}。{helper}说：“你太用力啦，笑一笑，再来。”{hero}就笑了一笑，又试了一次。",
        ],
    },
    Trouble {
        families: &[Learn],
        what: &["可是那么多人看着，{hero}不好意思了。", "可是第一次没做好，有人笑了，{hero}真想躲起来。"],
        fixes: &[
            "{idea}到屋子后面去练，那里只有大白菜看得见，{hero}又试了一次。",
            "{idea}{friend}说：“闭上眼睛，就当他们都是土豆。”{hero}扑哧一笑，又试了一次。",
            "{luck}一只乌鸦飞过来，它叫{helper}。{helper}说：“我小时候从窝里掉下来[十|二十]次呢。”{hero}听了，又试了一次。",
        ],
    },
];

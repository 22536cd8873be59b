-- The models, association kinds and model association that a new BlueKing CMDB has.

insert into cmdb.model (key, name, classification, icon, is_hidden) values
    ('host', '主机', 'bk_host_manage', 'icon-cc-host', false),
    ('module', '模块', 'bk_biz_topo', 'icon-cc-module', false),
    ('set', '集群', 'bk_biz_topo', 'icon-cc-set', false),
    ('biz', '业务', 'bk_organization', 'icon-cc-business', false),
    ('process', '进程', 'bk_uncategorized', 'icon-cc-process', true),
    ('plat', '云区域', 'bk_uncategorized', 'icon-cc-subnet', true),
    ('bk_biz_set_obj', '业务集', 'bk_organization', 'icon-cc-business-set', false),
    ('bk_project', '项目', 'bk_organization', 'icon-cc-project', false),
    ('bk_switch', '交换机', 'bk_network', 'icon-cc-switch2', false),
    ('bk_router', '路由器', 'bk_network', 'icon-cc-router', false),
    ('bk_load_balance', '负载均衡', 'bk_network', 'icon-cc-balance', false),
    ('bk_firewall', '防火墙', 'bk_network', 'icon-cc-firewall', false);

insert into cmdb.association_kind (key, name, source_text, target_text, is_predefined) values
    ('belong', '属于', '属于', '包含', true),
    ('group', '组成', '组成', '组成于', true),
    ('bk_mainline', '拓扑组成', '组成', '组成于', true),
    ('run', '运行', '运行于', '运行', true),
    ('connect', '上联', '上联', '下联', true),
    ('default', '默认关联', '关联', '被关联', true);

-- It has the number 5 in a new BlueKing CMDB, too. The numbers below are those of the topology.
select setval('cmdb.model_association_number_seq', 5);

insert into cmdb.model_association
    (id, key, source_model_id, target_model_id, association_kind_id, mapping, is_predefined)
select 5 * 4 + 2, 'bk_switch_connect_host', source.id, target.id, kind.id, '1:n', false
from cmdb.model source, cmdb.model target, cmdb.association_kind kind
where source.key = 'bk_switch' and target.key = 'host' and kind.key = 'connect';

-- The models, association kinds and model association that BlueKing CMDB ships with.

insert into model (key, name) values
    ('host', '主机'),
    ('module', '模块'),
    ('set', '集群'),
    ('biz', '业务'),
    ('process', '进程'),
    ('plat', '云区域'),
    ('bk_biz_set_obj', '业务集'),
    ('bk_project', '项目'),
    ('bk_switch', '交换机'),
    ('bk_router', '路由器'),
    ('bk_load_balance', '负载均衡'),
    ('bk_firewall', '防火墙');

insert into association_kind (key, name) values
    ('belong', '属于'),
    ('group', '组成'),
    ('bk_mainline', '拓扑组成'),
    ('run', '运行'),
    ('connect', '上联'),
    ('default', '默认关联');

insert into model_association (key, source_model_id, target_model_id, association_kind_id, mapping)
select 'bk_switch_connect_host', source.id, target.id, kind.id, '1:n'
from model source, model target, association_kind kind
where source.key = 'bk_switch' and target.key = 'host' and kind.key = 'connect';
